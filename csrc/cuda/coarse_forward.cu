#include <algorithm>
#include <cmath>

#include "cuda/check.h"
#include "cuda/coarse_scores.cuh"
#include "cuda/coarse_tensor.cuh"
#include "cuda/kernel_attributes.h"

// Softmax over rows of scores that lie in memory, and its product with the values. A block has the rows of a few warps;
// several groups of warps have the same rows and share out the keys of every step, each with an online softmax of its
// own (flash attention); at the end the groups' sums are joined in order. Scores go from memory to registers, values
// through two stages of shared memory, a step ahead.
namespace vsa::cuda {
namespace coarse {
namespace {

constexpr int kWarps = 16, kThreads = 32 * kWarps;
constexpr int kStageKeys = 64;

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

// Scores become exponentials relative to the new maximum. `left`: keys that exist from the lane's first on.
template <int kSteps>
__device__ __forceinline__ void softmax_step(float (&s)[kSteps][4], int left, Statistics& statistics,
                                             float (&correction)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = -INFINITY;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        if (8 * t + e < left) most = fmaxf(most, s[t][2 * r + e]);  // passes over NaN, which reaches the total
      }
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
        x = 8 * t + e < left ? expf(x - reference) : 0.0f;
        total += x;
      }
    }
    statistics.total[r] = fmaf(statistics.total[r], correction[r], total);
  }
}

// A block's head: where its rows begin.
struct Head {
  const float* scores;
  const float* v;
  float* output;
  float* lse;
};

// How a block's warps share its work: kRowWarps times 16 rows, kParts of the columns, kGroups of the keys of a step.
template <int D, int kRowWarps_>
struct Shape {
  static constexpr int kRowWarps = kRowWarps_, kParts = D == 64 ? 1 : 2, kGroups = kWarps / kRowWarps / kParts;
  static constexpr int kRows = kWarpRows * kRowWarps, kColumns = D / kParts;
  // A stage of values has one or two steps, in which a group has up to 16 keys, for the sake of registers.
  static constexpr int kKeys = std::min(kStageKeys / kGroups, 16), kStepKeys = kKeys * kGroups;
  static constexpr int kStageSteps = kStageKeys / kStepKeys;
  static constexpr int kGroupThreads = 32 * kRowWarps * kParts;
  static constexpr int kStage = kStageKeys * kPitch<D>;       // floats
  static constexpr int kSums = kGroupThreads * kColumns / 2;  // of a group
  static constexpr int kFloats = std::max(2 * kStage, (kGroups - 1) * (kSums + 4 * kGroupThreads));
  static constexpr int kSharedBytes = 4 * kFloats + sizeof(Head);
};

template <int D, int kRowWarps>
__global__ void __launch_bounds__(kThreads, 1) coarse_forward(const __grid_constant__ ForwardArgs p) {
  using S = Shape<D, kRowWarps>;
  constexpr int kSteps = S::kKeys / 8;
  extern __shared__ float4 memory[];
  float* const stages = reinterpret_cast<float*>(memory);

  const int index = static_cast<int>(blockIdx.x) / p.row_blocks, head = p.first_head + index;
  const int b = head / p.H, h = head - b * p.H, Hkv = p.H / p.group;
  const int warp = threadIdx.x / 32, part = warp / kRowWarps % S::kParts;
  const int group = warp / (kRowWarps * S::kParts), thread = threadIdx.x % S::kGroupThreads;
  const Lane lane;
  // The warp's first row, of the portion.
  const int row = (static_cast<int>(blockIdx.x) - index * p.row_blocks) * S::kRows + warp % kRowWarps * kWarpRows;
  // What the loop needs once a step: in shared memory it costs no registers.
  auto& of_head = *reinterpret_cast<Head*>(stages + S::kFloats);
  const Head first{p.scores.first + index * p.scores.head_stride, p.v + (int64_t{b} * p.Nk * Hkv + h / p.group) * D,
                   p.output + ((int64_t{b} * p.Nq + p.first_row) * p.H + h) * D,
                   p.lse + int64_t{head} * p.Nq + p.first_row};
  if (threadIdx.x == 0) of_head = first;
  int rows[2];  // of scores, in floats
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rows[r] = min(row + lane.row + 8 * r, p.rows - 1) * p.scores.row_stride + group * S::kKeys + 2 * lane.column;
  }

  const int steps = (p.Nk + S::kStepKeys - 1) / S::kStepKeys;
  const auto load = [&](int stage, const float* v) {
    copy_rows<D, kStageKeys, kThreads>(stages + stage % 2 * S::kStage, v, int64_t{p.H / p.group} * D,
                                       stage * kStageKeys, p.Nk, threadIdx.x);
    ptx::cp_async_commit();
  };
  float next[kSteps][4];
  const auto left_of = [&](int step) { return p.Nk - step * S::kStepKeys - group * S::kKeys - 2 * lane.column; };
  const auto read_scores = [&](int step, const float* scores) {
    const int left = left_of(step);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float* const from = scores + (rows[r] + step * S::kStepKeys);
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
        const float2 x = 8 * t < left ? *reinterpret_cast<const float2*>(from + 8 * t) : make_float2(0, 0);
        next[t][2 * r] = x.x, next[t][2 * r + 1] = x.y;
      }
    }
  };
  float s[kSteps][4], correction[2];
  Statistics statistics{{-INFINITY, -INFINITY}, {0, 0}};
  const auto exponentials = [&](int step) {
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[t][e] = next[t][e];
    }
    softmax_step(s, left_of(step), statistics, correction);
  };

  if (steps > 0) {
    load(0, first.v);
    read_scores(0, first.scores);
    exponentials(0);
    if (steps > 1) read_scores(1, first.scores);
  }
  float sum[S::kColumns / 8][4] = {};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int stage = step / S::kStageSteps;
    if (step % S::kStageSteps == 0) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // this stage's values are here, and nobody reads those of the one before any more
      if ((stage + 1) * kStageKeys < p.Nk) load(stage + 1, of_head.v);
    }
    const int key = step % S::kStageSteps * S::kStepKeys + group * S::kKeys;  // of the stage
    multiply_rows<D, S::kColumns>(
        sum, correction, s,
        stages + stage % 2 * S::kStage + key * kPitch<D> + part * S::kColumns + rows_place<D>(lane));
    if (step + 1 < steps) exponentials(step + 1);  // while slower warps are still busy with products
    if (step + 2 < steps) read_scores(step + 2, of_head.scores);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    statistics.total[r] += __shfl_xor_sync(~0u, statistics.total[r], 1);
    statistics.total[r] += __shfl_xor_sync(~0u, statistics.total[r], 2);
  }

  __syncthreads();             // the stages are free
  float* const sums = stages;  // of the groups but the first
  auto* const all_statistics = reinterpret_cast<float4*>(stages + (S::kGroups - 1) * S::kSums);
  if (group > 0) {
    put_sum(sums + (group - 1) * S::kSums, sum, thread, S::kGroupThreads);
    all_statistics[(group - 1) * S::kGroupThreads + thread] =
        make_float4(statistics.maximum[0], statistics.total[0], statistics.maximum[1], statistics.total[1]);
  }
  __syncthreads();
  if (group > 0) return;
#pragma unroll 1
  for (int other = 0; other < S::kGroups - 1; ++other) {
    const float4 x = all_statistics[other * S::kGroupThreads + thread];
    const float maxima[2] = {x.x, x.z}, totals[2] = {x.y, x.w};
    float own[2], theirs[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float most = fmaxf(statistics.maximum[r], maxima[r]), reference = most == -INFINITY ? 0.0f : most;
      own[r] = expf(statistics.maximum[r] - reference), theirs[r] = expf(maxima[r] - reference);
      statistics.maximum[r] = most;
      statistics.total[r] = fmaf(statistics.total[r], own[r], totals[r] * theirs[r]);
    }
    add_sum(sum, own, sums + other * S::kSums, theirs, thread, S::kGroupThreads);
  }
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = row + lane.row + 8 * r;
    const bool empty = statistics.total[r] == 0;  // no key above -inf
    if (at < p.rows && lane.column == 0 && part == 0) {
      of_head.lse[at] = empty ? -INFINITY : statistics.maximum[r] + logf(statistics.total[r]);
    }
    factor[r] = empty ? 0.0f : 1.0f / statistics.total[r];
  }
  write_rows(of_head.output + part * S::kColumns, int64_t{p.H} * D, row, p.rows, sum, factor, false);
}

template <int D, int kRowWarps>
void launch_as(ForwardArgs args, int64_t heads, const Launch& on) {
  using S = Shape<D, kRowWarps>;
  static_assert(S::kSharedBytes <= 99 * 1024, "what a block may have on every GPU");
  args.row_blocks = (args.rows + S::kRows - 1) / S::kRows;
  const int64_t blocks = heads * args.row_blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  allow_shared_memory(coarse_forward<D, kRowWarps>, S::kSharedBytes, "coarse_forward");
  coarse_forward<D, kRowWarps><<<static_cast<unsigned>(blocks), kThreads, S::kSharedBytes, on.stream>>>(args);
  check_launch("coarse_forward");
}

template <int D>
void launch_for(const ForwardArgs& args, int64_t heads, const Launch& on) {
  const auto launch = args.large ? launch_as<D, 4> : launch_as<D, 2>;
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
