#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

// Conversions between the element types, bit for bit those of the CPU (cpu/convert.h), NaN payloads included: rounding
// is to nearest even, overflow goes to infinity, a NaN stays a (quiet) NaN.
namespace vsa::cuda {

__host__ __device__ __forceinline__ uint32_t float_bits(float x) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(x);
#else
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
#endif
}

__host__ __device__ __forceinline__ float bits_float(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
#endif
}

__host__ __device__ __forceinline__ float bfloat16_to_float(uint16_t x) {
  return bits_float(static_cast<uint32_t>(x) << 16);
}

__host__ __device__ __forceinline__ uint16_t float_to_bfloat16(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40;
  return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

__host__ __device__ __forceinline__ float float16_to_float(uint16_t x) {
  const uint32_t magnitude = x & 0x7fffu;
  const uint32_t sign = (x & 0x8000u) << 16;
  // Exponents are rebiased by 127 - 15, that of infinity and NaN once more so that it becomes 255.
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  // A subnormal is magnitude * 2^-24: put it below an implicit one of 2^-14, then take that one away again.
  const float subnormal = bits_float(magnitude << 13 | 113u << 23) - bits_float(113u << 23);
  uint32_t bits = magnitude < 0x0400 ? float_bits(subnormal) : normal;
  bits = magnitude >= 0x7c00 ? normal + (112u << 23) : bits;
  return bits_float(bits | sign);
}

__host__ __device__ __forceinline__ uint16_t float_to_float16(float x) {
  const uint32_t bits = float_bits(x);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;  // may carry to infinity
  // Below 2^-14 the unit is 2^-24, that of 0.5: the addition rounds to it, to nearest even.
  const uint32_t subnormal = float_bits(bits_float(magnitude) + 0.5f) - (126u << 23);
  uint32_t half = magnitude < 113u << 23 ? subnormal : normal;
  half = magnitude >= 143u << 23 ? 0x7c00 : half;
  half = magnitude > 0x7f800000 ? 0x7e00 : half;
  return static_cast<uint16_t>(half | sign);
}

// Truncates, saturates; NaN becomes 0: what the hardware does.
__device__ __forceinline__ int32_t float_to_int32(float x) {
  return __float2int_rz(x);
}

// Rounds to odd: the result can be rounded again to 16 bits as if the number itself had been rounded.
__device__ __forceinline__ float int32_to_float_odd(int32_t x) {
  const float toward_zero = __int2float_rz(x);
  return __uint_as_float(__float_as_uint(toward_zero) | (__float2int_rz(toward_zero) != x ? 1u : 0u));
}

inline float double_to_float_odd(double x) {
  const float nearest = static_cast<float>(x);
  const double back = static_cast<double>(nearest);
  if (x != x || back == x) return nearest;
  uint32_t bits = float_bits(nearest);
  const bool away_from_zero = x < 0 ? back < x : back > x;
  if (away_from_zero) --bits;
  return bits_float(bits | 1);
}

}  // namespace vsa::cuda
