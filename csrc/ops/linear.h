#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// C = op(A) op(B) (+ bias), products summed in fp32 and rounded once. Matrices are row-major and contiguous.
struct MatrixProduct {
  DType dtype;         // of a and b: float32, bfloat16 or float16
  DType output_dtype;  // the same, or float32
  int64_t M, N, K;
  bool transpose_a;  // a is [K, M], else [M, K]
  bool transpose_b;  // b is [N, K], else [K, N]
  const void* a;
  const void* b;
  const float* bias;  // [N], or null: 0
  void* output;       // [M, N]
};

// Sum over the rows, in fp32 and in a fixed order: the gradient of whatever was added to every row.
struct ColumnSum {
  DType dtype;
  int64_t rows, columns;
  const void* x;  // [rows, columns]
  float* output;  // [columns]
};

}  // namespace vsa
