#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/coarse_scores.cuh"
#include "cuda/coarse_tensor.cuh"
#include "cuda/kernel_attributes.h"
#include "cuda/ptx/dependent_launch.h"

// Softmax over rows of scores that lie in memory, and its product with the values. A block has the rows of a few warps;
// several groups of warps have the same rows and share out the keys of every step, each with an online softmax of its
// own (flash attention); at the end the groups' sums are joined in order. Scores go from memory to registers, values to
// shared memory, both a step ahead.
namespace vsa::cuda {
namespace coarse {
namespace {

constexpr int kThreads = 256;
constexpr int kStepKeys = 64;

struct ForwardArgs {
  int32_t H, group, Nq, Nk;  // group: query heads that share a key head
  int32_t first_head, first_row, rows;
  int32_t row_blocks;  // of a head
  bool large;          // blocks
  Scores scores;
  const float* v;  // [B, Nk, Hkv, D]
  float* output;   // [B, Nq, H, D]
  float* lse;      // [B, H, Nq]
};

// Of the lane's two rows: maximum of the scores, sum of exponentials (of the lane's own columns until the end).
struct Statistics {
  float maximum[2], total[2];
};

// Scores become exponentials relative to the new maximum.
template <int kSteps>
__device__ __forceinline__ void softmax_step(float (&s)[kSteps][4], Statistics& statistics, float (&correction)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = -INFINITY;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) most = fmaxf(most, s[t][2 * r + e]);  // passes over NaN, which reaches the total
    }
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 2));
    most = fmaxf(most, statistics.maximum[r]);
    const float reference = most == -INFINITY ? 0.0f : most;  // -inf - -inf would be NaN
    correction[r] = expf(statistics.maximum[r] - reference);
    statistics.maximum[r] = most;
    float total = 0;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float& x = s[t][2 * r + e];
        x = expf(x - reference);
        total += x;
      }
    }
    statistics.total[r] = fmaf(statistics.total[r], correction[r], total);
  }
}

template <int D, int kGroups>
__global__ void __launch_bounds__(kThreads, 1) coarse_forward(const __grid_constant__ ForwardArgs p) {
  constexpr int kRowWarps = kThreads / 32 / kGroups, kRows = kWarpRows * kRowWarps, kGroupThreads = 32 * kRowWarps;
  constexpr int kKeys = kStepKeys / kGroups, kSteps = kKeys / 8;  // of a group
  using Values = Matrix<kStepKeys, D>;
  static_assert((kGroups - 1) * kGroupThreads * (D / 2 + 4) * 4 <= 2 * Values::kBytes, "sums and statistics fit");
  extern __shared__ __align__(128) unsigned char stages[];
  ptx::dependent_launch();  // what may run beside this touches nothing of it (CudaDevice::launch)

  const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads;
  const Lane lane;
  const float* v;
  const float* scores[2];  // the lane's rows
  const int64_t v_stride = int64_t{p.H / p.group} * D;
  {
    const Queries queries(p.H, p.first_head, p.row_blocks, kRows, thread / 32);
    v = p.v + queries.b * p.Nk * v_stride + queries.h / p.group * D;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      scores[r] = p.scores.first + queries.index * p.scores.head_stride +
                  int64_t{min(queries.first + lane.row + 8 * r, p.rows - 1)} * p.scores.row_stride;
    }
  }

  const int steps = (p.Nk + kStepKeys - 1) / kStepKeys;
  // Beyond the last step: zeros, for nobody.
  Fetched<Values, kThreads> values;
  const auto load = [&](int step, int share) {
    const int first = step * kStepKeys;
    values.load(share, threadIdx.x,
                [&](int row) { return first + row < p.Nk ? v + (first + row) * v_stride : nullptr; });
  };
  const auto store = [&](int step, int share) { values.store(share, threadIdx.x, stages + step % 2 * Values::kBytes); };
  float next[kSteps][4];
  const auto read_scores = [&](int step) {
    const int key = step * kStepKeys + group * kKeys + 2 * lane.column, left = p.Nk - key;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float* const from = scores[r] + key;
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        float2 x = make_float2(0, 0);
        if (8 * t < left) x = *reinterpret_cast<const float2*>(from + 8 * t);
        next[t][2 * r] = x.x, next[t][2 * r + 1] = x.y;
      }
    }
  };

  read_scores(0);
#pragma unroll
  for (int share = 0; share < values.kShares; ++share) load(0, share), store(0, share);
  float sum[D / 8][4] = {};
  Statistics statistics{{-INFINITY, -INFINITY}, {0, 0}};
  const uint32_t own_values = Values::by_rows(ptx::shared_address(stages), group * kKeys);
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    __syncthreads();  // this step's values are here, and nobody reads those of the one before any more
    const int left = p.Nk - step * kStepKeys - group * kKeys - 2 * lane.column;
    float s[kSteps][4], correction[2];
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[t][e] = 8 * t + e % 2 < left ? next[t][e] : -INFINITY;
    }
    softmax_step(s, statistics, correction);
    Left probabilities[kSteps / 2];
#pragma unroll
    for (int t = 0; t < kSteps / 2; ++t) probabilities[t].take(s[2 * t], s[2 * t + 1]);
#pragma unroll
    for (int share = 0; share < values.kShares; ++share) {
      load(step + 1, share);
      if (share == 0) read_scores(step + 1);
      multiply_rows<Values>(sum, 0, correction, probabilities, own_values + step % 2 * Values::kBytes, share);
      if (never()) break;
      store(step + 1, share);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    statistics.total[r] += __shfl_xor_sync(~0u, statistics.total[r], 1);
    statistics.total[r] += __shfl_xor_sync(~0u, statistics.total[r], 2);
  }

  __syncthreads();                                       // the stages are free
  float* const sums = reinterpret_cast<float*>(stages);  // of the groups but the first
  auto* const all_statistics = reinterpret_cast<float4*>(sums + (kGroups - 1) * kGroupThreads * (D / 2));
  if (group > 0) {
    put_sum<D>(sums + (group - 1) * kGroupThreads * (D / 2), sum, thread, kGroupThreads);
    all_statistics[(group - 1) * kGroupThreads + thread] =
        make_float4(statistics.maximum[0], statistics.total[0], statistics.maximum[1], statistics.total[1]);
  }
  __syncthreads();
  if (group > 0) return;
#pragma unroll 1
  for (int other = 0; other < kGroups - 1; ++other) {
    const float4 x = all_statistics[other * kGroupThreads + thread];
    const float maxima[2] = {x.x, x.z}, totals[2] = {x.y, x.w};
    float own[2], theirs[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float most = fmaxf(statistics.maximum[r], maxima[r]), reference = most == -INFINITY ? 0.0f : most;
      own[r] = expf(statistics.maximum[r] - reference), theirs[r] = expf(maxima[r] - reference);
      statistics.maximum[r] = most;
      statistics.total[r] = fmaf(statistics.total[r], own[r], totals[r] * theirs[r]);
    }
    add_sum<D>(sum, own, sums + other * kGroupThreads * (D / 2), theirs, thread, kGroupThreads);
  }
  const Queries queries(p.H, p.first_head, p.row_blocks, kRows, thread / 32);
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = queries.first + lane.row + 8 * r;
    const bool empty = statistics.total[r] == 0;  // no key above -inf
    if (at < p.rows && lane.column == 0) {
      p.lse[int64_t{queries.head} * p.Nq + p.first_row + at] =
          empty ? -INFINITY : statistics.maximum[r] + logf(statistics.total[r]);
    }
    factor[r] = empty ? 0.0f : 1.0f / statistics.total[r];
  }
  const int64_t stride = int64_t{p.H} * D;
  float* const output = p.output + (int64_t{queries.b} * p.Nq + p.first_row) * stride + queries.h * D;
  write_rows<D>(output, stride, queries.first, p.rows, sum, factor, false);
}

template <int D, int kGroups>
void launch_as(ForwardArgs args, int64_t heads, const Launch& on) {
  constexpr int kRows = kWarpRows * kThreads / 32 / kGroups, kShared = 2 * Matrix<kStepKeys, D>::kBytes;
  static_assert(kShared <= 99 * 1024, "what a block may have on every GPU");
  args.row_blocks = (args.rows + kRows - 1) / kRows;
  const int64_t blocks = heads * args.row_blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  allow_shared_memory(coarse_forward<D, kGroups>, kShared, "coarse_forward");
  launch_kernel(coarse_forward<D, kGroups>, "coarse_forward", on, static_cast<unsigned>(blocks), kThreads, kShared,
                args);
}

template <int D>
void launch_for(const ForwardArgs& args, int64_t heads, const Launch& on) {
  const auto launch = args.large ? launch_as<D, 2> : launch_as<D, 4>;
  launch(args, heads, on);
}

}  // namespace
}  // namespace coarse

void launch(const CoarseForward& p, const Launch& on) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.D == 64 || p.D == 96 || p.D == 128, "D must be 64, 96 or 128");
  const int64_t heads = p.B * p.H, row_stride = coarse::padded_row(p.Nk);
  if (heads * p.Nq == 0) return;
  coarse::ForwardArgs args{};
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.Nq = static_cast<int32_t>(p.Nq), args.Nk = static_cast<int32_t>(p.Nk);
  args.large = coarse::large_blocks(heads, p.Nq);
  args.v = p.v, args.output = p.output, args.lse = p.lse;
  const auto attend = [&](const coarse::Portion& portion, const coarse::Scores& scores) {
    args.first_head = static_cast<int32_t>(portion.first_head);
    args.first_row = static_cast<int32_t>(portion.first_row), args.rows = static_cast<int32_t>(portion.rows);
    args.scores = scores;
    const auto launch = p.D == 64   ? coarse::launch_for<64>
                        : p.D == 96 ? coarse::launch_for<96>
                                    : coarse::launch_for<128>;
    launch(args, portion.heads, on);
  };
  if (p.scores != nullptr) {
    // Read only.
    attend({0, heads, 0, p.Nq}, {const_cast<float*>(p.scores), p.Nq * row_stride, static_cast<int32_t>(row_stride)});
    return;
  }
  float* scratch = nullptr;
  coarse::in_portions(heads, 1, p.Nq, row_stride, [&](const coarse::Portion& portion) {
    const int64_t head_stride = portion.rows * row_stride;
    if (scratch == nullptr) scratch = on.scratch_of<float>(portion.heads * head_stride);  // the first is the largest
    const coarse::Scores scores{scratch, head_stride, static_cast<int32_t>(row_stride)};
    coarse::launch_scores(p, portion, scores, on);
    attend(portion, scores);
  });
}

}  // namespace vsa::cuda
