#pragma once

#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "core/error.h"
#include "cuda/tile_layout.h"
#include "cuda/vectors.cuh"

// For kernels between tokens [B, rows, width] and one row a tile [B, tiles, width]: a thread owns one vector of columns
// of one tile and goes through the tile's slots in their order, so no thread needs another's result.
namespace vsa::cuda {

// What a thread works on: a vector of columns of one (batch, tile).
struct Part {
  bool exists;
  int32_t tile;
  int64_t pooled;  // element of [B, tiles, width] where the vector begins
  int64_t tokens;  // element of [B, rows, width] where it begins in row 0 of its batch

  template <int V>
  __device__ __forceinline__ static Part of_thread(const TileLayout& layout, int32_t width, uint32_t parts) {
    const uint32_t item = blockIdx.x * blockDim.x + threadIdx.x, vectors = static_cast<uint32_t>(width / V);
    const uint32_t row = item / vectors, b = row / static_cast<uint32_t>(layout.tiles);
    const int64_t column = static_cast<int64_t>(item - row * vectors) * V;
    Part part;
    part.exists = item < parts;
    part.tile = static_cast<int32_t>(row - b * static_cast<uint32_t>(layout.tiles));
    part.pooled = static_cast<int64_t>(row) * width + column;
    part.tokens = static_cast<int64_t>(b) * layout.rows * width + column;
    return part;
  }
};

// Calls launch(a T, elements of a vector, blocks of kThreads, width, parts); nothing for an empty problem. `pointers`:
// of all that is read or written in vectors.
template <int kThreads, typename F>
void for_vectors(DType dtype, int64_t B, int64_t H, int64_t D, const TileLayout& layout,
                 std::initializer_list<const void*> pointers, const F& launch) {
  const int64_t width = H * D, rows = B * layout.tiles;
  if (rows * width == 0) return;
  VSA_CHECK(dtype != DType::int32, "tokens must be float32, bfloat16 or float16");
  const int wide = static_cast<int>(16 / size_of(dtype));
  uintptr_t bits = 0;
  for (const void* pointer : pointers) bits |= reinterpret_cast<uintptr_t>(pointer);
  const int vector = (bits & 15) == 0 && width % wide == 0 ? wide : 1;
  const int64_t parts = rows * (width / vector);
  VSA_CHECK(width <= INT32_MAX && parts <= INT32_MAX, "too large a problem for one launch");
  const uint32_t blocks = static_cast<uint32_t>((parts + kThreads - 1) / kThreads);
  const auto go = [&](auto element) {
    using T = decltype(element);
    constexpr int kWide = 16 / sizeof(T);
    const auto w = static_cast<int32_t>(width);
    const auto n = static_cast<uint32_t>(parts);
    if (vector > 1) {
      launch(element, std::integral_constant<int, kWide>(), blocks, w, n);
    } else {
      launch(element, std::integral_constant<int, 1>(), blocks, w, n);
    }
  };
  if (dtype == DType::float32) go(float());
  if (dtype == DType::bfloat16) go(__nv_bfloat16());
  if (dtype == DType::float16) go(__half());
}

}  // namespace vsa::cuda
