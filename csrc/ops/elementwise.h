#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

struct Fill {
  DType dtype;
  int64_t count;
  double value;  // rounded to the nearest even of dtype; whole numbers for int32
  void* output;
};

// Between any two dtypes: to 16-bit floats round to nearest even, overflow to inf, NaN stays NaN;
// float to int32 truncates and saturates, NaN becomes 0.
struct Cast {
  DType from, to;
  int64_t count;
  const void* x;
  void* output;
};

// Philox4x32-10 (Salmon et al., SC 2011): block n has counter (n_low, n_high, 0, 0) and key (seed_low, seed_high),
// and gives four 32-bit words w0..w3, elements 4n .. 4n+3.
// The words themselves, as int32.
struct RandomBits {
  uint64_t seed;
  int64_t count;
  int32_t* output;
};

// Standard normals from the same words by Box-Muller, computed in float64 and then rounded to dtype, so that every
// backend gives the same numbers: u1 = (w0 + 0.5) / 2^32, u2 = (w1 + 0.5) / 2^32, r = sqrt(-2 ln u1), and elements
// 4n = r cos(2 pi u2), 4n+1 = r sin(2 pi u2); 4n+2 and 4n+3 the same from w2 and w3. Then mean + std * z.
struct RandomNormal {
  DType dtype;  // float32, bfloat16 or float16 (rounded to float32 first)
  uint64_t seed;
  int64_t count;
  double mean, std;
  void* output;
};

}  // namespace vsa
