#pragma once

#include <cstdint>

namespace vsa {

// Element types a tensor may have. The numbers cross the binding (lib/tensor/dtype.ts has the same list).
enum class DType : int32_t { float32 = 0, bfloat16 = 1, float16 = 2, int32 = 3 };

constexpr int64_t size_of(DType dtype) {
  return dtype == DType::float32 || dtype == DType::int32 ? 4 : 2;
}

// How tokens lie in memory: row-major video order without padding, or tile after tile with 64 slots each.
enum class Order : int32_t { grid = 0, tiled = 1 };

// What a prefix key tile is to the selection: always kept beside the top K, or ranked with the video tiles.
enum class PrefixMode : int32_t { exempt = 0, compete = 1 };

}  // namespace vsa
