#include "cuda/block_cache.h"

#include <iterator>

namespace vsa::cuda {

void* BlockCache::take(int64_t size) {
  const auto same = by_size_.find(size);
  if (same == by_size_.end()) return nullptr;
  const Blocks::iterator block = same->second.back();
  same->second.pop_back();
  if (same->second.empty()) by_size_.erase(same);
  void* const data = block->data;
  blocks_.erase(block);
  bytes_ -= size;
  return data;
}

void BlockCache::put(void* data, int64_t size) {
  blocks_.push_back({data, size});
  by_size_[size].push_back(std::prev(blocks_.end()));
  bytes_ += size;
}

void* BlockCache::take_oldest() {
  const Block oldest = blocks_.front();
  const auto same = by_size_.find(oldest.size);
  same->second.pop_front();
  if (same->second.empty()) by_size_.erase(same);
  blocks_.pop_front();
  bytes_ -= oldest.size;
  return oldest.data;
}

}  // namespace vsa::cuda
