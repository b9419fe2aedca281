#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// silu: x / (1 + exp(-x)). gelu_tanh: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), Hendrycks and Gimpel,
// arXiv 1606.08415. In fp32.
enum class Activation { silu, gelu_tanh };

struct ActivationForward {
  DType dtype;
  Activation kind;
  int64_t count;
  const void* x;
  void* output;
};

struct ActivationBackward {
  DType dtype;
  Activation kind;
  int64_t count;
  const void* x;
  const void* doutput;
  void* dx;
};

}  // namespace vsa
