#include "cuda/block_cache.h"

#include <algorithm>
#include <functional>

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
  std::vector<Block>& same = by_size_[size];
  const auto higher = [](const Block& one, const void* other) { return std::greater<>()(one.data, other); };
  same.insert(std::lower_bound(same.begin(), same.end(), data, higher), {data, ++puts_});
  bytes_ += size;
}

// There are blocks. Goes through all of them: this is not for every block.
void* BlockCache::take_oldest() {
  const auto older = [](const Block& a, const Block& b) { return a.number < b.number; };
  std::vector<Block>* from = nullptr;
  std::vector<Block>::iterator oldest;
  int64_t size = 0;
  for (auto same = by_size_.begin(); same != by_size_.end();) {
    if (same->second.empty()) {
      same = by_size_.erase(same);
      continue;
    }
    const auto first = std::min_element(same->second.begin(), same->second.end(), older);
    if (from == nullptr || first->number < oldest->number) from = &same->second, oldest = first, size = same->first;
    ++same;
  }
  void* const data = oldest->data;
  from->erase(oldest);
  bytes_ -= size;
  return data;
}

}  // namespace vsa::cuda
