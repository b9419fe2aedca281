#pragma once

#include <cstdint>
#include <vector>

namespace vsa {

// One parameter and what belongs to it, all fp32.
struct Parameter {
  int64_t count;
  float* value;
  const float* gradient;
  float* first;   // running mean of the gradient
  float* second;  // running mean of its square
};

// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), all parameters in one call.
struct AdamW {
  std::vector<Parameter> parameters;
  double beta1, beta2, eps, weight_decay;
  const float* rates;  // [3]: learning rate, 1 - beta1^step, 1 - beta2^step: on the device, for replayed graphs
  const float* gradient_scale;  // [1]: gradients are multiplied by it; or null: 1
};

// output[0] = sqrt of the sum of all squares, in a fixed order; output[1] = min(1, max_norm / (output[0] + 1e-6)), by
// which gradients are multiplied so that their norm is at most max_norm (1 where max_norm is infinite).
struct GradientNorm {
  std::vector<const float*> x;
  std::vector<int64_t> counts;
  double max_norm;
  float* output;  // [2]
};

// average += (1 - decay) * (value - average): the exponential moving average of parameters.
struct MovingAverage {
  std::vector<float*> averages;
  std::vector<const float*> values;
  std::vector<int64_t> counts;
  double decay;
};

}  // namespace vsa
