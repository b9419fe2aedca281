#pragma once

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/math.h"
#include "cuda/sm90/fine_backward_ring.cuh"
#include "cuda/sm90/ptx/wgmma.h"

// What a consumer warpgroup does with tiles: fragments, products, and the ways out for its sums.
namespace vsa::cuda::sm90::fine_backward {

// One k step is 16 columns: 32 of a row's 128 bytes, then the next panel. In units of 16 bytes, as descriptors count.
__device__ __forceinline__ constexpr uint64_t along_columns(int step) {
  return step % 4 * 2 + step / 4 * (kPanelBytes / 16);
}
// Or 16 rows of 128 bytes.
__device__ __forceinline__ constexpr uint64_t along_rows(int step) {
  return step * 128;
}

// A tile of 64 rows, as the A operand in registers whose k are its columns. Matrix m of an ldmatrix is a quarter of
// the 16 x 16 block of a k step: rows (m % 2) * 8 on, columns (m / 2) * 8 on, which is the order of A's four words.
// Of a wider tile, its first D columns.
template <int D>
__device__ __forceinline__ void load_fragments(uint32_t (&a)[D / 4], uint32_t tile) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row = warp * 16 + lane % 16;
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    const int chunk = step % 4 * 2 + lane / 16;
    uint32_t r[4];
    ptx::ldmatrix_x4(r, tile + step / 4 * kPanelBytes + row * 128 + ((chunk ^ (row & 7)) << 4));
#pragma unroll
    for (int i = 0; i < 4; ++i) a[step * 4 + i] = r[i];
  }
}

// d[64 x 64] = a b^T over the head: a in registers, b a tile.
template <typename T, int D>
__device__ __forceinline__ void multiply(float (&d)[32], const uint32_t (&a)[D / 4], uint32_t b) {
  const uint64_t rows = ptx::descriptor(ptx::descriptor_low(b, 0));
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    ptx::wgmma_m64n64k16<T>(d, a + step * 4, rows + along_columns(step), step != 0);
  }
}

// The same with both tiles in shared memory.
template <typename T, int D>
__device__ __forceinline__ void multiply(float (&d)[32], uint32_t a, uint32_t b) {
  const uint64_t left = ptx::descriptor(ptx::descriptor_low(a, 0));
  const uint64_t right = ptx::descriptor(ptx::descriptor_low(b, 0));
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    ptx::wgmma_m64n64k16<T>(d, left + along_columns(step), right + along_columns(step), step != 0);
  }
}

// The same with the first k steps of a in registers, the others in shared memory, where the whole of it is.
template <typename T, int D, int kWords>
__device__ __forceinline__ void multiply(float (&d)[32], const uint32_t (&a)[kWords], uint32_t whole, uint32_t b) {
  const uint64_t left = ptx::descriptor(ptx::descriptor_low(whole, 0));
  const uint64_t right = ptx::descriptor(ptx::descriptor_low(b, 0));
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    if (step < kWords / 4) {
      ptx::wgmma_m64n64k16<T>(d, a + step * 4, right + along_columns(step), step != 0);
    } else {
      ptx::wgmma_m64n64k16<T>(d, left + along_columns(step), right + along_columns(step), step != 0);
    }
  }
}

// sums[64 x D] += a b: a is 64 x 64, packed accumulators; b a tile, its rows being k.
template <typename T, int D>
__device__ __forceinline__ void accumulate(float (&sums)[D / 2], const uint32_t (&a)[16], uint32_t b) {
  const uint64_t columns = ptx::descriptor(ptx::descriptor_low(b, kPanelBytes));
#pragma unroll
  for (int step = 0; step < 4; ++step) ptx::wgmma_rows_k16<T>(sums, a + step * 4, columns + along_rows(step));
}

template <typename T>
__device__ __forceinline__ void pack_sums(uint32_t (&a)[16], const float (&d)[32]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) a[i] = ptx::pack<T>(d[2 * i], d[2 * i + 1]);
}

template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t x) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
  } else {
    return __half22float2(*reinterpret_cast<const __half2*>(&x));
  }
}

// Lane j of four gets word j of each of the other three: x[k] of lane j becomes x[j] of lane k.
__device__ __forceinline__ void transpose_quad(uint32_t (&x)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int k = 0; k < 4; k += 2) {
    const uint32_t other = __shfl_xor_sync(~0u, odd ? x[k] : x[k + 1], 1);
    (odd ? x[k] : x[k + 1]) = other;
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const uint32_t other = __shfl_xor_sync(~0u, upper ? x[k] : x[k + 2], 2);
    (upper ? x[k] : x[k + 2]) = other;
  }
}

// Writes a warpgroup's sums as a tile of one head of a tensor [B, rows, heads, D]: times scale, plus the tile's pooled
// gradient over its number of tokens. Padding, which has rows in tiled order only, becomes 0. `pooled`: [B, tiles,
// heads, D], or null.
template <typename T, int D>
__device__ __forceinline__ void store_tile(const float (&sums)[D / 2], float scale, const TileLayout& layout,
                                           const float* pooled, void* tensor, int32_t b, int32_t tile, int32_t head,
                                           int32_t heads) {
  const TilePlace place = layout.place(tile);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int row = warp * 16 + lane / 4;
  const bool valid[2] = {place.valid(row), place.valid(row + 8)};
  const bool written[2] = {valid[0] || layout.tiled, valid[1] || layout.tiled};
  const float share = 1.0f / static_cast<float>(place.count());
  if (pooled != nullptr) pooled += ((static_cast<int64_t>(b) * layout.tiles + tile) * heads + head) * D + lane % 4 * 2;
  T* to[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int64_t of_tensor = static_cast<int64_t>(b) * layout.rows + place.row(row + r * 8);
    to[r] = static_cast<T*>(tensor) + (of_tensor * heads + head) * D + lane % 4 * 8;
  }
#pragma unroll
  for (int first = 0; first < D / 8; first += 4) {  // 32 columns
    uint32_t words[2][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* of_8 = sums + (first + i) * 4;
      float2 extra = make_float2(0.0f, 0.0f);
      if (pooled != nullptr) {
        extra = *reinterpret_cast<const float2*>(pooled + (first + i) * 8);
        extra.x *= share, extra.y *= share;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        words[r][i] = ptx::pack<T>(of_8[2 * r] * scale + extra.x, of_8[2 * r + 1] * scale + extra.y);
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      transpose_quad(words[r]);
      const uint4 value = make_uint4(words[r][0], words[r][1], words[r][2], words[r][3]);
      if (written[r]) *reinterpret_cast<uint4*>(to[r] + first * 8) = valid[r] ? value : make_uint4(0, 0, 0, 0);
    }
  }
}

// A part's sums, 64 D floats as the accumulators lie: four of each thread, thread after thread.
template <int D>
__device__ __forceinline__ void store_part(const float (&sums)[D / 2], float* to) {
  float4* mine = reinterpret_cast<float4*>(to) + threadIdx.x % kWarpgroup;
#pragma unroll
  for (int i = 0; i < D / 8; ++i) {
    mine[i * kWarpgroup] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
  }
}

template <int D>
__device__ __forceinline__ void add_part(float (&sums)[D / 2], const float* from) {
  const float4* mine = reinterpret_cast<const float4*>(from) + threadIdx.x % kWarpgroup;
#pragma unroll
  for (int i = 0; i < D / 8; ++i) {
    const float4 x = mine[i * kWarpgroup];
    sums[4 * i] += x.x, sums[4 * i + 1] += x.y, sums[4 * i + 2] += x.z, sums[4 * i + 3] += x.w;
  }
}

// Where dK (which = 0) or dV (1) of a key tile goes: to its part, or to the gradient, finished.
template <typename T, int D>
__device__ __forceinline__ void store_key_gradient(const float (&sums)[D / 2], int which, const Args& p, int32_t b,
                                                   int32_t head, int32_t tile, int32_t part) {
  if (part >= 0) return store_part<D>(sums, p.dkdv.parts + (static_cast<int64_t>(part) * 2 + which) * (64 * D));
  store_tile<T, D>(sums, which == 0 ? p.scale : 1.0f, p.kv_layout, which == 0 ? p.dk_pooled : p.dv_pooled,
                   which == 0 ? p.dk : p.dv, b, tile, head, p.Hkv);
}

}  // namespace vsa::cuda::sm90::fine_backward
