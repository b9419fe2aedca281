#pragma once

#include <cstdint>
#include <new>
#include <string>

#include "core/error.h"

namespace vsa::cpu {

// Memory for intermediate rows that a thread keeps from item to item (declare it thread_local): grown when more is
// asked for, never shrunk, aligned to 64 bytes, contents not kept. Freed when its thread ends.
class Scratch {
public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { release(); }

  float* floats(int64_t count) {
    if (count > capacity_) {
      release();
      const int64_t bytes = count * static_cast<int64_t>(sizeof(float));
      data_ = static_cast<float*>(::operator new(static_cast<size_t>(bytes), kAlignment, std::nothrow));
      if (data_ == nullptr) {
        throw OutOfMemory("no memory for " + std::to_string(bytes) + " bytes of intermediate results", bytes, 0, 0);
      }
      capacity_ = count;
    }
    return data_;
  }

private:
  static constexpr std::align_val_t kAlignment{64};

  void release() {
    ::operator delete(data_, kAlignment);
    data_ = nullptr;
    capacity_ = 0;
  }

  float* data_ = nullptr;
  int64_t capacity_ = 0;
};

constexpr int64_t round_up(int64_t x, int64_t multiple) {
  return (x + multiple - 1) / multiple * multiple;
}

// Elements between rows of `columns` floats in scratch memory: whole cache lines, and an odd number of them, so that
// a column of a block spreads over all sets of the cache.
constexpr int64_t row_stride(int64_t columns) {
  return round_up(columns, 16) | 16;
}

}  // namespace vsa::cpu
