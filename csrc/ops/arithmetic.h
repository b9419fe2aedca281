#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// output = alpha * a + beta * b, in fp32; b repeats: element i takes b[i % b_count].
struct Add {
  DType dtype;  // of a, b and output
  int64_t count, b_count;
  float alpha, beta;
  const void* a;  // [count]
  const void* b;  // [b_count], or null: 0
  void* output;   // may be a
};

struct Multiply {
  DType dtype;
  int64_t count;
  const void* a;
  const void* b;
  void* output;
};

// output = x + branch * gate, the gate a vector of every group: the gated residual of adaLN-zero (arXiv 2212.09748).
struct GatedResidualForward {
  DType dtype;                  // of x, branch and output
  int64_t rows, width, groups;  // row r belongs to group r / (rows / groups)
  const void* x;                // [rows, width]
  const void* branch;           // [rows, width]
  const float* gate;            // [groups, width]
  void* output;
};

struct GatedResidualBackward {
  DType dtype;
  int64_t rows, width, groups;
  const void* branch;
  const float* gate;
  const void* doutput;
  void* dbranch;  // doutput * gate
  float* dgate;   // [groups, width], rows summed in a fixed order
};

// scale * sum of all elements, in a fixed order.
struct Sum {
  DType dtype;
  int64_t count;
  double scale;
  const void* x;
  float* output;  // [1]
};

// scale times a number on the device, in every element: the gradient of Sum.
struct Spread {
  DType dtype;  // of output
  int64_t count;
  double scale;
  const float* x;  // [1]
  void* output;
};

// Mean of (prediction - target)^2.
struct SquaredErrorForward {
  DType dtype;  // of prediction and target
  int64_t count;
  const void* prediction;
  const void* target;
  float* output;  // [1]
};

// dprediction = 2 (prediction - target) / count * doutput; dtarget is its negative.
struct SquaredErrorBackward {
  DType dtype;
  int64_t count;
  const void* prediction;
  const void* target;
  const float* doutput;  // [1]
  void* dprediction;
};

// Rows of bytes from one matrix into another: slices and concatenations along any dim.
struct CopyRows {
  int64_t rows, bytes;              // of each row, copied as they are
  int64_t x_stride, output_stride;  // bytes from row to row
  int64_t x_offset, output_offset;  // bytes before the first
  const void* x;
  void* output;
};

}  // namespace vsa
