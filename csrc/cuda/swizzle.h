#pragma once

#include <cstdint>

namespace vsa::cuda {

// Rows of D 16-bit elements in shared memory, without padding, their 16-byte chunks permuted so that eight neighbouring
// rows of one chunk lie in different banks: ldmatrix and 16-byte stores then have no bank conflicts. A row of 96 covers
// one and a half times the banks, so pairs of rows share a phase there and only four chunks are permuted.
//
// A phase is made of bits of the row, and permuting is XOR: where `row` and `more` share no bits,
//   offset(row | more, chunk ^ other) = (offset(row, chunk) ^ (phase(more) ^ other) * 16) + more * kRowBytes,
// as long as `other` is less than kPeriod. Buffers must be aligned to 128 bytes.
template <int D>
struct Swizzle {
  static_assert(D % 32 == 0, "a row must be a multiple of 64 bytes");
  static constexpr int kRowBytes = D * 2;
  static constexpr int kChunks = D / 8;                // of 16 bytes, in a row
  static constexpr int kPeriod = D % 64 == 0 ? 8 : 4;  // chunks that are permuted among themselves
  static constexpr int kPeriodBytes = kPeriod * 16;

  __device__ __forceinline__ static constexpr int phase(int row) { return kPeriod == 8 ? row & 7 : (row >> 1) & 3; }
  __device__ __forceinline__ static constexpr uint32_t offset(int row, int chunk) {
    return row * kRowBytes + (chunk ^ phase(row)) * 16;
  }
  // The address `chunk` chunks (even or odd, known to the compiler) beyond one that offset(row, 0 or 1) gave.
  __device__ __forceinline__ static constexpr uint32_t advance(uint32_t address, int chunk) {
    return (address ^ (chunk % kPeriod * 16)) + chunk / kPeriod * kPeriodBytes;
  }
};

}  // namespace vsa::cuda
