#pragma once

#include <bit>
#include <cstdint>

// Scalar conversions between the element types, without branches, so that loops over them vectorise.
// Rounding is to nearest even; overflow goes to infinity; a NaN stays a (quiet) NaN.
namespace vsa::cpu {

#define VSA_ALWAYS_INLINE inline __attribute__((always_inline))

// condition ? x : y, without the branch that compilers make of it when x comes from float arithmetic.
VSA_ALWAYS_INLINE uint32_t choose(bool condition, uint32_t x, uint32_t y) {
  const uint32_t mask = 0u - static_cast<uint32_t>(condition);
  return (x & mask) | (y & ~mask);
}

VSA_ALWAYS_INLINE float bfloat16_to_float(uint16_t x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x) << 16);
}

VSA_ALWAYS_INLINE uint16_t float_to_bfloat16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const uint32_t quiet = bits >> 16 | 0x40;
  return static_cast<uint16_t>(choose((bits & 0x7fffffff) > 0x7f800000, quiet, rounded));
}

VSA_ALWAYS_INLINE float float16_to_float(uint16_t x) {
  const uint32_t magnitude = x & 0x7fffu;
  const uint32_t sign = (x & 0x8000u) << 16;
  // Exponents are rebiased by 127 - 15, that of infinity and NaN once more so that it becomes 255.
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = normal + (112u << 23);
  // A subnormal is magnitude * 2^-24: put it below an implicit one of 2^-14, then take that one away again.
  const float subnormal = std::bit_cast<float>(magnitude << 13 | 113u << 23) - std::bit_cast<float>(113u << 23);
  const uint32_t finite = choose(magnitude < 0x0400, std::bit_cast<uint32_t>(subnormal), normal);
  return std::bit_cast<float>(choose(magnitude >= 0x7c00, special, finite) | sign);
}

VSA_ALWAYS_INLINE uint16_t float_to_float16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t magnitude = bits & 0x7fffffff;
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t normal = (magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13;  // may carry to infinity
  // Below 2^-14 the unit is 2^-24, that of 0.5: the addition rounds to it, to nearest even.
  const uint32_t subnormal = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - (126u << 23);
  uint32_t half = choose(magnitude < 113u << 23, subnormal, normal);
  half = choose(magnitude >= 143u << 23, 0x7c00, half);
  half = choose(magnitude > 0x7f800000, 0x7e00, half);
  return static_cast<uint16_t>(half | sign);
}

// Truncates, saturates; NaN becomes 0.
VSA_ALWAYS_INLINE int32_t float_to_int32(float x) {
  const float inside = x >= -2147483648.0f && x < 2147483648.0f ? x : 0.0f;
  int32_t result = static_cast<int32_t>(inside);
  result = x >= 2147483648.0f ? INT32_MAX : result;
  return x < -2147483648.0f ? INT32_MIN : result;
}

// Rounds to odd: the result can be rounded again to 16 bits as if the double had been rounded directly.
inline float double_to_float_odd(double x) {
  const float nearest = static_cast<float>(x);
  const double back = static_cast<double>(nearest);
  if (x != x || back == x) return nearest;
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  const bool away_from_zero = x < 0 ? back < x : back > x;
  if (away_from_zero) --bits;
  return std::bit_cast<float>(bits | 1);
}

}  // namespace vsa::cpu
