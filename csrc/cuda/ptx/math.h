#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

namespace vsa::cuda::ptx {

// 2^x to 2 ulp; subnormals are 0; 0 for -inf, NaN for NaN.
__device__ __forceinline__ float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A natural logarithm in base 2: rounded by itself, whatever it is added to.
__device__ __forceinline__ float to_log2(float natural) {
  return __fmul_rn(natural, static_cast<float>(M_LOG2E));
}

// Two floats rounded to nearest even, `low` in the low half.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high);

template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

template <>
__device__ __forceinline__ uint32_t pack<__half>(float low, float high) {
  uint32_t r;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// The two of a word as floats, the low one first.
template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t x);

template <>
__device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t x) {
  return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xffff0000u));
}

template <>
__device__ __forceinline__ float2 unpack<__half>(uint32_t x) {
  return __half22float2(*reinterpret_cast<const __half2*>(&x));
}

}  // namespace vsa::cuda::ptx
