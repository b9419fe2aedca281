#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// output = (x - mean) / sqrt(var + eps) * gain + shift along each row, in fp32. RMS: mean is 0 and var the mean square.
// Gain and shift may be weights of the layer (one group) or a modulation of every batch entry (a group each).
// LayerNorm: Ba et al., arXiv 1607.06450; RMSNorm: Zhang and Sennrich, arXiv 1910.07467; modulation: Peebles and Xie,
// 2212.09748.
struct NormForward {
  DType dtype;  // of x and output
  int64_t rows, width;
  int64_t groups;  // rows is a multiple: row r belongs to group r / (rows / groups)
  bool rms;        // no mean, no shift
  bool one_plus;   // the gain counts from 1: 1 + gain
  float eps;
  const void* x;       // [rows, width]
  const float* gain;   // [groups, width], or null: no gain
  const float* shift;  // [groups, width], or null: 0
  void* output;        // [rows, width]
  float* mean;         // [rows]; null for RMS
  float* rstd;         // [rows], 1 / sqrt(var + eps)
};

struct NormBackward {
  DType dtype;  // of x, doutput and dx
  int64_t rows, width, groups;
  bool rms, one_plus;
  const void* x;
  const float* gain;  // or null
  const float* mean;  // null for RMS
  const float* rstd;
  const void* doutput;
  void* dx;       // [rows, width]
  float* dgain;   // [groups, width], rows summed in a fixed order; null: not wanted
  float* dshift;  // [groups, width]; null: not wanted
};

}  // namespace vsa
