#include "cuda/block_cache.h"

namespace vsa::cuda {

void* BlockCache::take(int64_t size) {
  const auto same = by_size_.find(size);
  if (same == by_size_.end() || same->second.empty()) return nullptr;
  void* const data = same->second.back().data;
  same->second.pop_back();
  bytes_ -= size;
  return data;
}

void BlockCache::put(void* data, int64_t size) {
  by_size_[size].push_back({data, ++puts_});
  bytes_ += size;
}

// There are blocks. Goes through all sizes: they are few, and this is not for every block.
void* BlockCache::take_oldest() {
  auto oldest = by_size_.end();
  for (auto same = by_size_.begin(); same != by_size_.end();) {
    if (same->second.empty()) {
      same = by_size_.erase(same);
      continue;
    }
    if (oldest == by_size_.end() || same->second.front().number < oldest->second.front().number) oldest = same;
    ++same;
  }
  void* const data = oldest->second.front().data;
  oldest->second.erase(oldest->second.begin());
  bytes_ -= oldest->first;
  return data;
}

}  // namespace vsa::cuda
