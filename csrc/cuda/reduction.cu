#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tensors.cuh"
#include "cuda/vectors.cuh"

// Sums in float64 over whole tensors, in a fixed order: of each chunk by a block, then of the chunks by one block.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLastThreads = 1024;

// The sum over a block, in its first thread.
template <int threads>
__device__ __forceinline__ double block_sum(double x) {
  __shared__ double sums[threads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = x;
  __syncthreads();
  if (threadIdx.x != 0) return 0;
  double total = 0;
#pragma unroll
  for (int warp = 0; warp < threads / 32; ++warp) total += sums[warp];
  return total;
}

// Of elements [begin, end), in vectors where that is so; term(x, y): y is absent without a second tensor.
template <typename T, int V, bool second, typename Term>
__device__ __forceinline__ double chunk_sum(const T* x, const T* y, int64_t begin, int64_t end, const Term& term) {
  constexpr int kAhead = 4;
  double sum = 0;
  const int64_t whole = begin + (end - begin) / V * V;
  for (int64_t at = begin + threadIdx.x * V; at < whole; at += kThreads * V * kAhead) {
    Bits<T, V> a[kAhead], b[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int64_t here = at + i * kThreads * V;
      if (here < whole) a[i] = *reinterpret_cast<const Bits<T, V>*>(x + here);
      if (second && here < whole) b[i] = *reinterpret_cast<const Bits<T, V>*>(y + here);
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (at + i * kThreads * V >= whole) continue;
      const Vector<float, V> p = to_float<T, V>(a[i]), q = second ? to_float<T, V>(b[i]) : Vector<float, V>{};
#pragma unroll
      for (int c = 0; c < V; ++c) sum += term(p.element[c], q.element[c]);
    }
  }
  const int64_t rest = whole + threadIdx.x;
  if (rest < end) sum += term(static_cast<float>(x[rest]), second ? static_cast<float>(y[rest]) : 0.0f);
  return sum;
}

struct Element {
  __device__ double operator()(float x, float) const { return x; }
};

struct SquaredError {
  __device__ double operator()(float prediction, float target) const {
    const double error = static_cast<double>(prediction) - static_cast<double>(target);
    return error * error;
  }
};

template <typename T, int V, bool second, typename Term>
__global__ void __launch_bounds__(kThreads)
    chunks_kernel(const T* x, const T* y, int64_t count, Term term, double* sums) {
  const int64_t begin = blockIdx.x * kChunkElements, end = min(begin + kChunkElements, count);
  const double sum = block_sum<kThreads>(chunk_sum<T, V, second>(x, y, begin, end, term));
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kThreads) squares_kernel(Tensors<1> tensors, double* sums) {
  const Place place = tensors.locate(blockIdx.x);
  const float* x = tensors.memory[0][place.tensor];
  const auto square = [](float value, float) { return static_cast<double>(value) * static_cast<double>(value); };
  const double sum = place.wide ? chunk_sum<float, 4, false>(x, x, place.begin, place.end, square)
                                : chunk_sum<float, 1, false>(x, x, place.begin, place.end, square);
  const double total = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

struct Scale {
  double by;
  __device__ void operator()(double sum, float* output) const { output[0] = static_cast<float>(by * sum); }
};

struct Mean {
  double count;
  __device__ void operator()(double sum, float* output) const { output[0] = static_cast<float>(sum / count); }
};

// The norm, and the factor by which gradients are multiplied; NaN stays NaN.
struct Clip {
  double max_norm;
  __device__ void operator()(double sum, float* output) const {
    const double norm = sqrt(sum), factor = isinf(max_norm) ? 1.0 : max_norm / (norm + 1e-6);
    output[0] = static_cast<float>(norm);
    output[1] = static_cast<float>(factor > 1 ? 1.0 : factor);
  }
};

template <typename Finish>
__global__ void __launch_bounds__(kLastThreads)
    finish_kernel(const double* sums, int64_t count, Finish finish, float* output) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < count; i += kLastThreads) sum += sums[i];
  const double total = block_sum<kLastThreads>(sum);
  if (threadIdx.x == 0) finish(total, output);
}

template <typename Finish>
void finish(const double* sums, int64_t count, const Finish& how, float* output, const Launch& on) {
  finish_kernel<<<1, kLastThreads, 0, on.stream()>>>(sums, count, how, output);
  check_launch("finish_kernel");
}

template <bool second, typename Term, typename Finish>
void reduce(DType dtype, const void* x, const void* y, int64_t count, const Term& term, const Finish& how,
            float* output, const Launch& on) {
  const int64_t chunks = chunks_of(count);
  double* const sums = on.scratch_of<double>(std::max<int64_t>(chunks, 1));
  if (chunks > 0) {
    for_elements(dtype, aligned_to_16({x, y}), [&](auto element, auto vector) {
      using T = decltype(element);
      chunks_kernel<T, vector(), second><<<blocks_of(chunks, 1), kThreads, 0, on.stream()>>>(
          static_cast<const T*>(x), static_cast<const T*>(y), count, term, sums);
      check_launch("chunks_kernel");
    });
  }
  finish(sums, chunks, how, output, on);
}

}  // namespace

void launch(const Sum& p, const Launch& on) {
  reduce<false>(p.dtype, p.x, nullptr, p.count, Element(), Scale{p.scale}, p.output, on);
}

void launch(const SquaredErrorForward& p, const Launch& on) {
  reduce<true>(p.dtype, p.prediction, p.target, p.count, SquaredError(), Mean{static_cast<double>(p.count)}, p.output,
               on);
}

void launch(const GradientNorm& p, const Launch& on) {
  int64_t chunks = 0;
  for (const int64_t count : p.counts) chunks += chunks_of(count);
  double* const sums = on.scratch_of<double>(std::max<int64_t>(chunks, 1));
  for_tensors<1>(
      p.counts, [&](size_t i, auto& to) { to[0] = const_cast<float*>(p.x[i]); },
      [&](const Tensors<1>& tensors, int64_t first) {
        squares_kernel<<<blocks_of(tensors.chunks(), 1), kThreads, 0, on.stream()>>>(tensors, sums + first);
        check_launch("squares_kernel");
      });
  finish(sums, chunks, Clip{p.max_norm}, p.output, on);
}

}  // namespace vsa::cuda
