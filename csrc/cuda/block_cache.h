#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace vsa::cuda {

// Free blocks of a device's memory, kept to be handed out again. Nothing is waited for: a block that was given back
// goes to work that comes later on the same stream, and in its order: a kernel may run beside the one ahead of it only
// if nothing was given back in between (CudaDevice::lets_beside_). Under the device's lock.
class BlockCache {
public:
  // Sizes of blocks are multiples of this, what CUDA's pool rounds to.
  static constexpr int64_t kGranule = 512;
  static int64_t rounded(int64_t bytes) { return bytes <= 0 ? kGranule : (bytes + kGranule - 1) / kGranule * kGranule; }

  // A free block of a rounded size; null if there is none. The one of the lowest address: so a loop that gives back in
  // every round what it took gets the same blocks for the same things every time, and launches with the same arguments
  // (cuda/kept_launches.h), whatever the order of giving back.
  void* take(int64_t size);
  void put(void* data, int64_t size);
  // Takes out the blocks that were given back first, until at most so many bytes are left, and has each freed.
  template <typename Free>
  void shrink(int64_t most, const Free& free) {
    if (most > 0) {
      while (bytes_ > most) free(take_oldest());
      return;
    }
    for (const auto& [size, same] : by_size_) {
      for (const Block& block : same) free(block.data);
    }
    by_size_.clear();
    bytes_ = 0;
  }
  int64_t bytes() const { return bytes_; }

private:
  struct Block {
    void* data;
    uint64_t number;  // of its giving back
  };

  void* take_oldest();

  std::unordered_map<int64_t, std::vector<Block>> by_size_;  // each in falling order of addresses
  uint64_t puts_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace vsa::cuda
