#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// Rotates adjacent pairs of channels, (x0 + i x1) * (cos + i sin), by angles of the token's place. Rotary position
// embedding: Su et al., arXiv 2104.09864. The gradient is the rotation by the negative angles.
struct Rotary {
  DType dtype;  // of x and output
  int64_t B, L, H, D;
  bool inverse;        // by the negative angles
  const void* x;       // [B, L, H, D]
  const float* table;  // [L, D / 2, 2]: cos, sin
  void* output;        // [B, L, H, D]
};

}  // namespace vsa
