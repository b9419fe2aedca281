#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "cpu/chunks.h"
#include "cpu/ops.h"

namespace vsa::cpu {
namespace {

// Many memories of different lengths as one row of chunks: small ones beside each other, large ones on all threads.
class Chunks {
public:
  explicit Chunks(const std::vector<int64_t>& counts) : counts_(counts) {
    first_.reserve(counts.size());
    for (const int64_t count : counts) {
      first_.push_back(total_);
      total_ += chunks_of(count);
    }
  }

  int64_t total() const { return total_; }

  // body(memory, begin, end): what a chunk covers.
  template <class Body>
  void locate(int64_t chunk, const Body& body) const {
    // The last memory that begins at or before the chunk: empty ones begin where the next one does.
    const auto after = std::upper_bound(first_.begin(), first_.end(), chunk);
    const size_t memory = static_cast<size_t>(after - first_.begin()) - 1;
    const int64_t begin = (chunk - first_[memory]) * kChunkElements;
    body(memory, begin, std::min(begin + kChunkElements, counts_[memory]));
  }

  template <class Body>
  void for_each(const Body& body) const {
    parallel_for(total_, [&](int64_t chunk) { locate(chunk, body); });
  }

private:
  const std::vector<int64_t>& counts_;
  std::vector<int64_t> first_;  // chunk of each memory
  int64_t total_ = 0;
};

}  // namespace

// In float64 from the fp32 state to the fp32 state: every number is rounded once a step.
void run(const AdamW& p) {
  const double rate = p.rates[0], first_correction = 1.0 / p.rates[1], second_correction = 1.0 / p.rates[2];
  const double scale = p.gradient_scale == nullptr ? 1.0 : *p.gradient_scale;
  const double keep = 1 - rate * p.weight_decay;
  const double beta1 = p.beta1, beta2 = p.beta2, eps = p.eps;
  std::vector<int64_t> counts;
  for (const Parameter& parameter : p.parameters) counts.push_back(parameter.count);
  Chunks(counts).for_each([&](size_t index, int64_t begin, int64_t end) {
    const Parameter& parameter = p.parameters[index];
    float* __restrict value = parameter.value;
    const float* __restrict gradient = parameter.gradient;
    float* __restrict first = parameter.first;
    float* __restrict second = parameter.second;
    for (int64_t i = begin; i < end; ++i) {
      const double g = gradient[i] * scale;
      const double mean = beta1 * first[i] + (1 - beta1) * g;
      const double square = beta2 * second[i] + (1 - beta2) * g * g;
      const double direction = mean * first_correction / (std::sqrt(square * second_correction) + eps);
      first[i] = static_cast<float>(mean);
      second[i] = static_cast<float>(square);
      value[i] = static_cast<float>(keep * value[i] - rate * direction);
    }
  });
}

void run(const GradientNorm& p) {
  const Chunks chunks(p.counts);
  std::vector<double> sums(static_cast<size_t>(chunks.total()));
  parallel_for(chunks.total(), [&](int64_t chunk) {
    chunks.locate(chunk, [&](size_t index, int64_t begin, int64_t end) {
      const float* x = p.x[index] + begin;
      sums[static_cast<size_t>(chunk)] = sum_terms(end - begin, [x](int64_t i) {
        const double value = x[i];
        return value * value;
      });
    });
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  const double norm = std::sqrt(total);
  const double factor = std::isinf(p.max_norm) ? 1.0 : p.max_norm / (norm + 1e-6);
  p.output[0] = static_cast<float>(norm);
  p.output[1] = static_cast<float>(factor > 1 ? 1.0 : factor);  // NaN stays NaN
}

void run(const MovingAverage& p) {
  const double share = 1 - p.decay;
  Chunks(p.counts).for_each([&](size_t index, int64_t begin, int64_t end) {
    float* __restrict average = p.averages[index];
    const float* __restrict value = p.values[index];
    for (int64_t i = begin; i < end; ++i) {
      const double before = average[i];
      average[i] = static_cast<float>(before + share * (static_cast<double>(value[i]) - before));
    }
  });
}

}  // namespace vsa::cpu
