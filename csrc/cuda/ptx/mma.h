#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace vsa::cuda::ptx {

// c += a b for one warp: a 16x16 (row-major fragments), b 16x8 (column-major), c 16x8 in fp32. Lane l, g = l / 4 and
// j = 2 (l % 4), holds pairs of neighbours, the lower index in the low half:
//   a[0] (g, j)  a[1] (g + 8, j)  a[2] (g, j + 8)  a[3] (g + 8, j + 8)      (row, k)
//   b0 (j, g)  b1 (j + 8, g)                                                (k, column)
//   c[0], c[1] (g, j), (g, j + 1)  c[2], c[3] (g + 8, j), (g + 8, j + 1)    (row, column)
// So two neighbouring 16x8 accumulators, packed, are the a of a product whose k is their 16 columns.
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void mma_m16n8k16<__nv_bfloat16>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                            uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void mma_m16n8k16<__half>(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace vsa::cuda::ptx
