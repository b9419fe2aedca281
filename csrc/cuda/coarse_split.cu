#include <cfloat>

#include "cuda/check.h"
#include "cuda/coarse_tensor.cuh"

// The inputs of coarse attention as sums of two fp16 numbers. A warp has a row of q (and of doutput and output), or one
// of k and one of v.
namespace vsa::cuda::coarse {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kLeastExponent = -80;  // of a row: then no unit, nor a quotient of two, leaves fp32's range

struct Args {
  int64_t query_rows, rows;  // of all batches and heads; rows: with those of the keys
  int32_t H, Hkv, Nq, Nk;
  const float* q;        // [B, Nq, H, D]
  const float* k;        // [B, Nk, Hkv, D]
  const float* v;        // [B, Nk, Hkv, D]
  const float* output;   // [B, Nq, H, D]; null in the forward, like the two below
  const float* doutput;  // [B, Nq, H, D]
  const float* lse;      // [B, H, Nq]
  Split to;
};

__device__ __forceinline__ float power_of_two(int exponent) {
  return __int_as_float((exponent + 127) << 23);
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(~0u, x, distance);
  return x;
}

// A row, two neighbouring columns a lane: columns 64 i + 2 lane and + 1.
template <int D>
struct Row {
  static constexpr int kPairs = (D / 2 + 31) / 32;
  float2 x[kPairs];

  __device__ __forceinline__ explicit Row(const float* from) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      x[i] = exists(i) ? *reinterpret_cast<const float2*>(from + column(i)) : make_float2(0, 0);
    }
  }
  __device__ __forceinline__ static int column(int i) {
    return 64 * i + threadIdx.x % 32 * 2;
  }
  __device__ __forceinline__ static bool exists(int i) {
    return D % 64 == 0 || column(i) < D;
  }

  // Writes high and low; returns the unit, such that the row's length is below 2^15 units. Columns that are not finite
  // do not count.
  __device__ __forceinline__ float split(__half* to) const {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) largest = fmaxf(largest, fmaxf(magnitude(x[i].x), magnitude(x[i].y)));
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, distance));
    }
    int exponent = min(max((__float_as_int(largest) >> 23) - 127, kLeastExponent), 126);
    const float about_one = power_of_two(-exponent);
    float squares = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float a = magnitude(x[i].x) * about_one, b = magnitude(x[i].y) * about_one;
      squares = fmaf(a, a, fmaf(b, b, squares));
    }
    squares = fmaxf(warp_sum(squares), 1.0f);
    exponent += ((__float_as_int(squares) >> 23) - 127 + 2) / 2;  // the length is below 2^exponent
    const float inverse = power_of_two(15 - exponent);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      if (!exists(i)) continue;
      const float a = x[i].x * inverse, b = x[i].y * inverse;
      const __half2 high = __floats2half2_rn(a, b);
      const float2 back = __half22float2(high);
      const __half2 low = __floats2half2_rn(isinf(back.x) ? 0 : a - back.x, isinf(back.y) ? 0 : b - back.y);
      *reinterpret_cast<__half2*>(to + column(i)) = high;
      *reinterpret_cast<__half2*>(to + D + column(i)) = low;
    }
    return power_of_two(exponent - 15);
  }

  __device__ __forceinline__ float dot(const Row& other) const {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) sum = fmaf(x[i].x, other.x[i].x, fmaf(x[i].y, other.x[i].y, sum));
    return warp_sum(sum);
  }

private:
  __device__ __forceinline__ static float magnitude(float x) {
    return fabsf(x) <= FLT_MAX ? fabsf(x) : 0;
  }
};

template <int D>
__global__ void __launch_bounds__(kThreads) coarse_split(const __grid_constant__ Args p) {
  const int64_t row = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  if (row >= p.rows) return;
  const bool first_lane = threadIdx.x % 32 == 0;
  if (row < p.query_rows) {
    const int64_t token = row / p.H, b = token / p.Nq, h = row - token * p.H;
    const int64_t to = (b * p.H + h) * p.Nq + (token - b * p.Nq);
    const Row<D> q(p.q + row * D);
    QueryRow statistics{};
    if (p.doutput != nullptr) {
      const Row<D> output(p.output + row * D), doutput(p.doutput + row * D);
      statistics.dunit = doutput.split(p.to.doutput + to * (2 * D));
      statistics.delta = doutput.dot(output) / statistics.dunit;
      const float lse = p.lse[to];
      statistics.lse = lse == -INFINITY ? INFINITY : lse;
    }
    statistics.unit = q.split(p.to.q + to * (2 * D));
    if (first_lane) p.to.query_rows[to] = statistics;
    return;
  }
  const int64_t key_row = row - p.query_rows, token = key_row / p.Hkv, b = token / p.Nk, h = key_row - token * p.Hkv;
  const int64_t to = (b * p.Hkv + h) * p.Nk + (token - b * p.Nk);
  const Row<D> k(p.k + key_row * D), v(p.v + key_row * D);
  KeyRow statistics;
  statistics.unit = k.split(p.to.k + to * (2 * D));
  statistics.vunit = v.split(p.to.v + to * (2 * D));
  if (first_lane) p.to.key_rows[to] = statistics;
}

template <class Coarse>
Split split_inputs(const Coarse& p, const Args& inputs, const Launch& on) {
  Args args = inputs;
  args.query_rows = p.B * p.Nq * p.H;
  const int64_t key_rows = p.B * p.Nk * p.Hkv;
  args.rows = args.query_rows + key_rows;
  args.H = static_cast<int32_t>(p.H), args.Hkv = static_cast<int32_t>(p.Hkv);
  args.Nq = static_cast<int32_t>(p.Nq), args.Nk = static_cast<int32_t>(p.Nk);
  args.q = p.q, args.k = p.k, args.v = p.v;
  args.to.q = on.scratch_of<__half>(args.query_rows * 2 * p.D);
  args.to.k = on.scratch_of<__half>(key_rows * 2 * p.D);
  args.to.v = on.scratch_of<__half>(key_rows * 2 * p.D);
  args.to.doutput = args.doutput == nullptr ? nullptr : on.scratch_of<__half>(args.query_rows * 2 * p.D);
  args.to.query_rows = on.scratch_of<QueryRow>(args.query_rows);
  args.to.key_rows = on.scratch_of<KeyRow>(key_rows);
  const int64_t blocks = (args.rows + kWarps - 1) / kWarps;
  VSA_CHECK(blocks <= INT32_MAX, "too many rows for a launch");
  const auto kernel = p.D == 64 ? coarse_split<64> : p.D == 96 ? coarse_split<96> : coarse_split<128>;
  kernel<<<static_cast<unsigned>(blocks), kThreads, 0, on.stream>>>(args);
  check_launch("coarse_split");
  return args.to;
}

}  // namespace

Split split(const CoarseForward& p, const Launch& on) {
  return split_inputs(p, Args{}, on);
}

Split split(const CoarseBackward& p, const Launch& on) {
  Args args{};
  args.output = p.output, args.doutput = p.doutput, args.lse = p.lse;
  return split_inputs(p, args, on);
}

}  // namespace vsa::cuda::coarse
