#pragma once

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "cuda/ptx/math.h"

namespace vsa::cuda::sm90 {

// Online softmax of the two rows that a thread has a quarter of: of each 8 columns it has 2 (wgmma.h).
struct Softmax {
  // Scores further than this above a row's reference, in powers of 2, make a new one. The reference need not be the
  // maximum: P stays below 2^8, which bfloat16, float16 and fp32 sums hold as well as 1. So most tiles need no shuffles
  // and rescale nothing: local lists at D = 128 run at 617 TFLOP/s, 560 with exact maxima.
  static constexpr float kSlack = 8;

  float reference[2];  // of each row, times the scale
  float total[2];      // this thread's part of the row sums of P; after finish() the rows' sums
  float correction[2];
  bool raised;  // whether any row of the warp has a new reference

  // Rows that are padding have the highest reference: their scores, of whatever bits, then change nothing for others.
  __device__ __forceinline__ void begin(const bool (&exists)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) reference[r] = exists[r] ? -FLT_MAX : FLT_MAX, total[r] = 0, correction[r] = 1;
    raised = false;
  }

  // Keys that are padding: by select, so that no NaN passes.
  __device__ __forceinline__ static void mask(float (&s)[32], uint64_t valid) {
    valid >>= threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[4 * n + i] = valid >> (8 * n + i % 2) & 1 ? s[4 * n + i] : -INFINITY;
    }
  }

  // Scores become P, not yet rounded.
  __device__ __forceinline__ void weigh(float (&s)[32], float scale) {
    float highest[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = fmaxf(s[2 * r], s[2 * r + 1]);  // passes over NaN, which reaches the sums below
#pragma unroll
      for (int n = 1; n < 8; ++n) x = fmaxf(x, fmaxf(s[4 * n + 2 * r], s[4 * n + 2 * r + 1]));
      highest[r] = x * scale;
    }
    raised = __any_sync(~0u, highest[0] > reference[0] + kSlack || highest[1] > reference[1] + kSlack);
    if (raised) raise(highest);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& x = s[4 * n + i];
        x = ptx::exp2(fmaf(x, scale, -reference[i / 2]));
        total[i / 2] += x;
      }
    }
  }

  template <int N>
  __device__ __forceinline__ void rescale(float (&o)[N]) const {
    if (!raised) return;
#pragma unroll
    for (int i = 0; i < N; ++i) o[i] *= correction[i / 2 % 2];
  }

  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      total[r] += __shfl_xor_sync(~0u, total[r], 1);
      total[r] += __shfl_xor_sync(~0u, total[r], 2);
    }
  }
  __device__ __forceinline__ float lse(int r) const {
    return (reference[r] + log2f(total[r])) * 0.693147180559945f;
  }

private:
  __device__ __forceinline__ void raise(const float (&highest)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float x = highest[r];
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      x = fmaxf(x, reference[r]);
      correction[r] = ptx::exp2(reference[r] - x);
      reference[r] = x;
      total[r] *= correction[r];
    }
  }
};

}  // namespace vsa::cuda::sm90
