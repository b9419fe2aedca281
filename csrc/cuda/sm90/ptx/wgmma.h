#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace vsa::cuda::ptx {

// Warpgroup matrix products, d = a b (+ d), fp32 sums, b in shared memory, 16 of the inner dimension an instruction.
// Thread t of the warpgroup, w = t / 32, g = t % 32 / 4, c = t % 4:
//   d[4 i + 2 r + j] is row 16 w + g + 8 r, column 8 i + 2 c + j;
//   a0 (g, 2c), (g, 2c + 1)   a1 (g + 8, 2c..)   a2 (g, 2c + 8..)   a3 (g + 8, 2c + 8..)   (row in the warp's 16, k)
// so pairs of neighbouring accumulators, packed, are the a of a product whose inner dimension is their columns.

// Orders accesses to accumulators and a registers by ordinary instructions before products that follow.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Closes the group of products issued since the last one.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Waits until at most kPending of the latest groups are under way.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Makes the compiler believe that registers change here: it then moves nothing that touches them across. Needed before
// a fence and after a wait, because the products' asm statements look finished to it.
template <int N>
__device__ __forceinline__ void touch(float (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(x[i])::"memory");
}
template <int N>
__device__ __forceinline__ void touch(uint32_t (&x)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(x[i])::"memory");
}

// Descriptor of an operand in shared memory in panels of 64 columns: rows of 128 bytes, 128-byte swizzle (16-byte chunk
// index XOR row % 8), panels aligned to 1024 bytes. Bits 0..13 the address / 16, 16..29 the distance of panels / 16
// (used where the operand's outer dimension is the 128 contiguous bytes and spans panels), 32..45 the distance of
// groups of 8 rows / 16 = 64, 62..63 the swizzle, 1.
__device__ __forceinline__ uint32_t descriptor_low(uint32_t address, uint32_t panel_bytes) {
  return (address & 0x3ffff) >> 4 | panel_bytes >> 4 << 16;
}
__device__ __forceinline__ uint64_t descriptor(uint32_t low) {
  return uint64_t{0x40000040} << 32 | low;
}

#define VSA_ACC8(d, o)                                                                                        \
  "+f"(d[o]), "+f"(d[o + 1]), "+f"(d[o + 2]), "+f"(d[o + 3]), "+f"(d[o + 4]), "+f"(d[o + 5]), "+f"(d[o + 6]), \
      "+f"(d[o + 7])
#define VSA_ACC32(d) VSA_ACC8(d, 0), VSA_ACC8(d, 8), VSA_ACC8(d, 16), VSA_ACC8(d, 24)
#define VSA_ACC64(d) VSA_ACC32(d), VSA_ACC8(d, 32), VSA_ACC8(d, 40), VSA_ACC8(d, 48), VSA_ACC8(d, 56)
#define VSA_LIST32                                                                                     \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26," \
  "%27,%28,%29,%30,%31"
#define VSA_LIST64                                                                                \
  VSA_LIST32                                                                                      \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54," \
  "%55,%56,%57,%58,%59,%60,%61,%62,%63"

#define VSA_WGMMA_SS(TYPES)                                                                                \
  asm volatile(                                                                                            \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"                                                         \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" VSA_LIST32 "}, %32, %33, p, 1, 1, 0, 0;\n}" \
      : VSA_ACC32(d)                                                                                       \
      : "l"(a), "l"(b), "r"(accumulate))
#define VSA_WGMMA_RS(TYPES)                                                                                           \
  asm volatile(                                                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                                                    \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" VSA_LIST32 "}, {%32,%33,%34,%35}, %36, p, 1, 1, 0;\n}" \
      : VSA_ACC32(d)                                                                                                  \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate))
#define VSA_WGMMA_RS_ROWS64(TYPES)                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES " {" VSA_LIST32 \
               "}, {%32,%33,%34,%35}, %36, 1, 1, 1, "                              \
               "1;"                                                                \
               : VSA_ACC32(d)                                                      \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
#define VSA_WGMMA_RS_ROWS128(TYPES)                                                 \
  asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES " {" VSA_LIST64 \
               "}, {%64,%65,%66,%67}, %68, 1, 1, "                                  \
               "1, 1;"                                                              \
               : VSA_ACC64(d)                                                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))

template <typename T>
inline constexpr bool kIsBfloat16 = std::is_same_v<T, __nv_bfloat16>;

// 64x64: a and b both K-major (rows of 16 contiguous elements of the inner dimension) in shared memory.
template <typename T>
__device__ __forceinline__ void wgmma_m64n64k16(float (&d)[32], uint64_t a, uint64_t b, int accumulate) {
  if constexpr (kIsBfloat16<T>) VSA_WGMMA_SS("bf16.bf16");
  if constexpr (!kIsBfloat16<T>) VSA_WGMMA_SS("f16.f16");
}
// 64x64: a in registers, b K-major.
template <typename T>
__device__ __forceinline__ void wgmma_m64n64k16(float (&d)[32], const uint32_t* a, uint64_t b, int accumulate) {
  if constexpr (kIsBfloat16<T>) VSA_WGMMA_RS("bf16.bf16");
  if constexpr (!kIsBfloat16<T>) VSA_WGMMA_RS("f16.f16");
}
// d += a b: a in registers, b stored with the inner dimension as its rows (MN-major): 64 columns, or 128 in two panels.
template <typename T>
__device__ __forceinline__ void wgmma_rows_k16(float (&d)[32], const uint32_t* a, uint64_t b) {
  if constexpr (kIsBfloat16<T>) VSA_WGMMA_RS_ROWS64("bf16.bf16");
  if constexpr (!kIsBfloat16<T>) VSA_WGMMA_RS_ROWS64("f16.f16");
}
template <typename T>
__device__ __forceinline__ void wgmma_rows_k16(float (&d)[64], const uint32_t* a, uint64_t b) {
  if constexpr (kIsBfloat16<T>) VSA_WGMMA_RS_ROWS128("bf16.bf16");
  if constexpr (!kIsBfloat16<T>) VSA_WGMMA_RS_ROWS128("f16.f16");
}

#undef VSA_WGMMA_RS_ROWS128
#undef VSA_WGMMA_RS_ROWS64
#undef VSA_WGMMA_RS
#undef VSA_WGMMA_SS
#undef VSA_LIST64
#undef VSA_LIST32
#undef VSA_ACC64
#undef VSA_ACC32
#undef VSA_ACC8

}  // namespace vsa::cuda::ptx
