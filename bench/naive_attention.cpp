// The yardstick of bench/cpu-vs-naive.mjs: attention and its gradients for one head as a textbook writes them, in
// fp32, with scalar loops on one thread. Built with -O2 -fno-tree-vectorize.
//   naive_attention LENGTH HEAD_DIM [forward|backward]
// prints, as JSON, the CPU seconds of each pass and a checksum of all results, so that no result can be left out.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <vector>

namespace {

struct Head {
  int length, dim;
  std::vector<float> q, k, v, doutput, output, dq, dk, dv, probability;  // [length, dim]; probability [length]

  Head(int length_, int dim_) : length(length_), dim(dim_), probability(static_cast<size_t>(length_)) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    for (std::vector<float>* x : {&q, &k, &v, &doutput}) {
      x->resize(static_cast<size_t>(length) * dim);
      for (float& element : *x) element = normal(generator);
    }
    for (std::vector<float>* x : {&output, &dq, &dk, &dv}) x->resize(static_cast<size_t>(length) * dim);
  }

  // probability[j] = softmax_j(q_i . k_j / sqrt(dim))
  void softmax(int i) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    float maximum = -INFINITY, sum = 0;
    for (int j = 0; j < length; ++j) {
      float score = 0;
      for (int d = 0; d < dim; ++d) score += q[i * dim + d] * k[j * dim + d];
      probability[j] = score * scale;
      maximum = std::fmax(maximum, probability[j]);
    }
    for (int j = 0; j < length; ++j) sum += probability[j] = std::exp(probability[j] - maximum);
    for (int j = 0; j < length; ++j) probability[j] /= sum;
  }

  void forward() {
    for (int i = 0; i < length; ++i) {
      softmax(i);
      for (int j = 0; j < length; ++j) {
        for (int d = 0; d < dim; ++d) output[i * dim + d] += probability[j] * v[j * dim + d];
      }
    }
  }

  void backward() {
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int i = 0; i < length; ++i) {
      softmax(i);
      float delta = 0;
      for (int d = 0; d < dim; ++d) delta += doutput[i * dim + d] * output[i * dim + d];
      for (int j = 0; j < length; ++j) {
        float dprobability = 0;
        for (int d = 0; d < dim; ++d) dprobability += doutput[i * dim + d] * v[j * dim + d];
        const float dscore = probability[j] * (dprobability - delta) * scale;
        for (int d = 0; d < dim; ++d) {
          dv[j * dim + d] += probability[j] * doutput[i * dim + d];
          dq[i * dim + d] += dscore * k[j * dim + d];
          dk[j * dim + d] += dscore * q[i * dim + d];
        }
      }
    }
  }

  double checksum() const {
    double sum = 0;
    for (const std::vector<float>* x : {&output, &dq, &dk, &dv}) {
      for (const float element : *x) sum += std::fabs(element);
    }
    return sum;
  }
};

template <class Pass>
double seconds(const Pass& pass) {
  const std::clock_t begin = std::clock();
  pass();
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

}  // namespace

int main(int count, char** arguments) {
  const int length = count > 2 ? std::atoi(arguments[1]) : 0, dim = count > 2 ? std::atoi(arguments[2]) : 0;
  const bool forward_only = count > 3 && std::strcmp(arguments[3], "forward") == 0;
  if (length < 1 || dim < 1 || length > 1 << 20 || dim > 1024) {
    std::fprintf(stderr, "usage: naive_attention LENGTH HEAD_DIM [forward|backward]\n");
    return 2;
  }
  Head head(length, dim);
  const double forward = seconds([&] { head.forward(); });
  const double backward = forward_only ? 0 : seconds([&] { head.backward(); });
  std::printf("{\"forward\": %.6f, \"backward\": %.6f, \"checksum\": %.9g}\n", forward, backward, head.checksum());
}
