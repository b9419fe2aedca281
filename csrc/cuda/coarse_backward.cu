#include <cmath>

#include "cuda/check.h"
#include "cuda/coarse_scores.cuh"
#include "cuda/coarse_tensor.cuh"
#include "cuda/kernel_attributes.h"

// Two kernels. The first goes through the keys for some queries: it makes the gradients of the scores, leaves them in
// memory, and sums dq. The second goes through the queries for some keys and sums dk and dv; half of a block's warps
// has dk, the other dv. Nothing is ever added up between blocks. Scores lie in memory; probabilities are made of them
// anew.
namespace vsa::cuda {
namespace coarse {
namespace {

constexpr int kThreads = 256;
constexpr int kStepKeys = 64, kStepQueries = 32;

struct BackwardArgs {
  int32_t H, group, Nq, Nk;  // group: query heads that share a key head
  int32_t first_head, first_row, rows;
  int32_t key_heads, heads_each;  // of the portion: key heads, and query heads of each
  int32_t blocks;                 // of a head
  bool large_dq, large_dk_dv;     // blocks
  bool add;                       // to dk and dv of portions before
  float scale;
  Scores scores, dscores;
  const float* q;        // [B, Nq, H, D]
  const float* k;        // [B, Nk, Hkv, D]
  const float* v;        // [B, Nk, Hkv, D]
  const float* output;   // [B, Nq, H, D]
  const float* lse;      // [B, H, Nq]
  const float* doutput;  // [B, Nq, H, D]
  float* dq;             // [B, Nq, H, D]
  float* dk;             // [B, Nk, Hkv, D]
  float* dv;             // [B, Nk, Hkv, D]
};

// A log-sum-exp to take off scores: of a row without any, one that makes probabilities 0.
__device__ __forceinline__ float subtrahend(float lse) {
  return lse == -INFINITY ? INFINITY : lse;
}

// Of rows in memory, shared out over the four lanes of a row.
template <int D>
__device__ __forceinline__ float dot(const float* x, const float* y, int column) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    const float4 a = *reinterpret_cast<const float4*>(x + 16 * i + 4 * column);
    const float4 b = *reinterpret_cast<const float4*>(y + 16 * i + 4 * column);
    sum = fmaf(a.x, b.x, fmaf(a.y, b.y, fmaf(a.z, b.z, fmaf(a.w, b.w, sum))));
  }
  sum += __shfl_xor_sync(~0u, sum, 1);
  return sum + __shfl_xor_sync(~0u, sum, 2);
}

// A block has the rows of a few warps; groups of warps have the same rows and share out the keys of every step. There
// is room for one step's values and one step's keys: the next ones of either come while it is busy with the other.
template <int D, int kGroups>
__global__ void __launch_bounds__(kThreads, 1) coarse_dq(const __grid_constant__ BackwardArgs p) {
  constexpr int kRowWarps = kThreads / 32 / kGroups, kRows = kWarpRows * kRowWarps, kGroupThreads = 32 * kRowWarps;
  constexpr int kKeys = kStepKeys / kGroups, kSteps = kKeys / 8;  // of a group
  static_assert((kGroups - 1) * kGroupThreads * (D / 2) <= 2 * kStepKeys * kPitch<D>, "sums fit values and keys");
  extern __shared__ float4 memory[];
  float* const values = reinterpret_cast<float*>(memory);
  float* const keys = values + kStepKeys * kPitch<D>;
  float* const gradients = keys + kStepKeys * kPitch<D>;

  const int index = static_cast<int>(blockIdx.x) / p.blocks, head = p.first_head + index;
  const int b = head / p.H, h = head - b * p.H, Hkv = p.H / p.group;
  const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads;
  const Lane lane;
  const int first_row = (static_cast<int>(blockIdx.x) - index * p.blocks) * kRows;  // of the portion
  const int warp_row = thread / 32 * kWarpRows, row = first_row + warp_row;
  const int64_t key_head = (int64_t{b} * p.Nk * Hkv + h / p.group) * D, key_stride = int64_t{Hkv} * D;
  const int64_t query_head = (int64_t{b} * p.Nq * p.H + h) * D, query_stride = int64_t{p.H} * D;

  const auto load_values = [&](int step) {
    copy_rows<D, kStepKeys, kThreads>(values, p.v + key_head, key_stride, step * kStepKeys, p.Nk, threadIdx.x);
    ptx::cp_async_commit();
  };
  const auto load_keys = [&](int step) {
    copy_rows<D, kStepKeys, kThreads>(keys, p.k + key_head, key_stride, step * kStepKeys, p.Nk, threadIdx.x);
    ptx::cp_async_commit();
  };
  const auto meet = [&] {
    ptx::cp_async_wait<0>();
    __syncthreads();
  };

  copy_rows<D, kRows, kThreads>(gradients, p.doutput + query_head + p.first_row * query_stride, query_stride, first_row,
                                p.rows, threadIdx.x);
  load_values(0);
  int score_row[2];  // in floats
  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = min(row + lane.row + 8 * r, p.rows - 1);
    score_row[r] = at * p.scores.row_stride + 2 * lane.column;
    lse[r] = subtrahend(p.lse[int64_t{head} * p.Nq + p.first_row + at]);
    const int64_t query = query_head + (p.first_row + at) * query_stride;
    delta[r] = dot<D>(p.output + query, p.doutput + query, lane.column);
  }
  const float* const scores = p.scores.first + index * p.scores.head_stride;
  float* const dscores = p.dscores.first + index * p.dscores.head_stride;
  meet();
  load_keys(0);

  float sum[D / 8][4] = {};
  const float one[2] = {1, 1};
  const int steps = (p.Nk + kStepKeys - 1) / kStepKeys;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int first_key = step * kStepKeys + group * kKeys, left = p.Nk - first_key - 2 * lane.column;
    float s[kSteps][4], ds[kSteps][4];
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 x = make_float2(0, 0);
        if (8 * t < left) x = *reinterpret_cast<const float2*>(scores + (score_row[r] + first_key + 8 * t));
        s[t][2 * r] = x.x, s[t][2 * r + 1] = x.y;
      }
    }
    multiply_columns<D>(ds, gradients + warp_row * kPitch<D> + columns_place<D>(lane),
                        values + group * kKeys * kPitch<D> + columns_place<D>(lane));
    meet();  // this step's keys are here, and all are done with its values
    if (step + 1 < steps) load_values(step + 1);
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float probability = expf(s[t][e] - lse[e / 2]);
        ds[t][e] = 8 * t + e % 2 < left ? probability * (ds[t][e] - delta[e / 2]) : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (row + lane.row + 8 * r < p.rows && 8 * t < left) {
          *reinterpret_cast<float2*>(dscores + (score_row[r] + first_key + 8 * t)) =
              make_float2(ds[t][2 * r], ds[t][2 * r + 1]);
        }
      }
    }
    multiply_rows<D>(sum, one, ds, keys + group * kKeys * kPitch<D> + rows_place<D>(lane));
    meet();  // the next values are here, and all are done with the keys
    if (step + 1 < steps) load_keys(step + 1);
  }

  // All are done with values and keys.
  if (group > 0) put_sum<D>(values + (group - 1) * kGroupThreads * (D / 2), sum, thread, kGroupThreads);
  __syncthreads();
  if (group > 0) return;
#pragma unroll 1
  for (int other = 0; other < kGroups - 1; ++other) {
    add_sum<D>(sum, one, values + other * kGroupThreads * (D / 2), one, thread, kGroupThreads);
  }
  const float factor[2] = {p.scale, p.scale};
  write_rows<D>(p.dq + query_head + p.first_row * query_stride, query_stride, row, p.rows, sum, factor, false);
}

// A block has the keys of a few warps, and each warp's keys twice: for dv and for dk. Groups of warps have the same
// keys and share out the queries of every step. The two matrices come transposed from memory, eight keys of a row at a
// time; output gradients and queries through two stages of shared memory, a step ahead.
template <int D, int kGroups>
__global__ void __launch_bounds__(kThreads, 1) coarse_dk_dv(const __grid_constant__ BackwardArgs p) {
  constexpr int kRowWarps = kThreads / 64 / kGroups, kRows = kWarpRows * kRowWarps, kPartThreads = 32 * kRowWarps;
  constexpr int kQueries = kStepQueries / kGroups, kSteps = kQueries / 8;  // of a group
  constexpr int kOperand = kStepQueries * kPitch<D>;
  static_assert((kGroups - 1) * kThreads / kGroups * (D / 2) <= 4 * kOperand, "sums fit the stages");
  extern __shared__ float4 memory[];
  float* const stages = reinterpret_cast<float*>(memory);
  float* const lse = stages + 4 * kOperand;  // two stages of them

  const int index = static_cast<int>(blockIdx.x) / p.blocks, key_head = p.first_head / p.group + index;
  const int Hkv = p.H / p.group, b = key_head / Hkv, kv = key_head - b * Hkv;
  const int part = threadIdx.x / kPartThreads, thread = threadIdx.x % kPartThreads;
  const bool keys = part % 2 == 1;  // has dk
  const int group = part / 2;
  const Lane lane;
  const int row = (static_cast<int>(blockIdx.x) - index * p.blocks) * kRows + thread / 32 * kWarpRows;
  const int first_head = index * p.heads_each;  // of the portion's
  const int chunks = (p.rows + kStepQueries - 1) / kStepQueries, steps = p.heads_each * chunks;
  const int64_t query_stride = int64_t{p.H} * D;

  // A step is some queries of one head.
  const auto load = [&](int step) {
    const int of = step / chunks, first = (step - of * chunks) * kStepQueries;
    const int head = p.first_head + first_head + of;
    const int64_t at = (int64_t{b} * p.Nq * p.H + (head - b * p.H)) * D + p.first_row * query_stride;
    float* const stage = stages + step % 2 * (2 * kOperand);
    copy_rows<D, kStepQueries, kThreads>(stage, p.doutput + at, query_stride, first, p.rows, threadIdx.x);
    copy_rows<D, kStepQueries, kThreads>(stage + kOperand, p.q + at, query_stride, first, p.rows, threadIdx.x);
    if (threadIdx.x < kStepQueries) {
      const int query = min(first + static_cast<int>(threadIdx.x), p.rows - 1);
      ptx::cp_async_4(ptx::shared_address(lse + step % 2 * kStepQueries + threadIdx.x),
                      p.lse + int64_t{head} * p.Nq + p.first_row + query);
    }
    ptx::cp_async_commit();
  };
  float next[kSteps][4];
  const auto read = [&](int step) {
    const int of = step / chunks, first = (step - of * chunks) * kStepQueries + group * kQueries + 2 * lane.column;
    const Scores& from = keys ? p.dscores : p.scores;
    const float* const matrix = from.first + (first_head + of) * from.head_stride;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int query = min(first + 8 * t + e, p.rows - 1);
        const float* const x = matrix + int64_t{query} * from.row_stride;
        next[t][e] = x[min(row + lane.row, p.Nk - 1)], next[t][2 + e] = x[min(row + lane.row + 8, p.Nk - 1)];
      }
    }
  };

  load(0);
  read(0);
  float sum[D / 8][4] = {};
  const float one[2] = {1, 1};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // this step's rows are here, and nobody reads those of the one before any more
    if (step + 1 < steps) load(step + 1);
    const int left = p.rows - step % chunks * kStepQueries - group * kQueries - 2 * lane.column;
    const float* const my_lse = lse + step % 2 * kStepQueries + group * kQueries + 2 * lane.column;
    float x[kSteps][4];
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int query = 8 * t + e % 2;  // from the lane's first on
        const float given = next[t][e], value = keys ? given : expf(given - subtrahend(my_lse[query]));
        x[t][e] = query < left ? value : 0.0f;
      }
    }
    if (step + 1 < steps) read(step + 1);
    multiply_rows<D>(
        sum, one, x,
        stages + (step % 2 * 2 + (keys ? 1 : 0)) * kOperand + group * kQueries * kPitch<D> + rows_place<D>(lane));
  }

  if constexpr (kGroups > 1) {
    __syncthreads();  // the stages are free
    if (group > 0) put_sum<D>(stages + (part - 2) * kPartThreads * (D / 2), sum, thread, kPartThreads);
    __syncthreads();
    if (group > 0) return;
#pragma unroll 1
    for (int other = 0; other < kGroups - 1; ++other) {
      add_sum<D>(sum, one, stages + (2 * other + part) * kPartThreads * (D / 2), one, thread, kPartThreads);
    }
  }
  const float scale = keys ? p.scale : 1.0f, factor[2] = {scale, scale};
  const int64_t to = (int64_t{b} * p.Nk * Hkv + kv) * D;
  write_rows<D>((keys ? p.dk : p.dv) + to, int64_t{Hkv} * D, row, p.Nk, sum, factor, p.add);
}

template <int D, int kGroups>
void launch_dq(BackwardArgs args, const Launch& on) {
  constexpr int kRows = kWarpRows * kThreads / 32 / kGroups, kShared = (2 * kStepKeys + kRows) * kPitch<D> * 4;
  static_assert(kShared <= 99 * 1024, "what a block may have on every GPU");
  args.blocks = (args.rows + kRows - 1) / kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.heads_each * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  allow_shared_memory(coarse_dq<D, kGroups>, kShared, "coarse_dq");
  coarse_dq<D, kGroups><<<static_cast<unsigned>(blocks), kThreads, kShared, on.stream>>>(args);
  check_launch("coarse_dq");
}

template <int D, int kGroups>
void launch_dk_dv(BackwardArgs args, const Launch& on) {
  constexpr int kRows = kWarpRows * kThreads / 64 / kGroups, kShared = (4 * kPitch<D> + 2) * kStepQueries * 4;
  args.blocks = (args.Nk + kRows - 1) / kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many key tiles for a launch");
  allow_shared_memory(coarse_dk_dv<D, kGroups>, kShared, "coarse_dk_dv");
  coarse_dk_dv<D, kGroups><<<static_cast<unsigned>(blocks), kThreads, kShared, on.stream>>>(args);
  check_launch("coarse_dk_dv");
}

template <int D>
void launch_for(const BackwardArgs& args, const Launch& on) {
  const auto dq = args.large_dq ? launch_dq<D, 2> : launch_dq<D, 4>;
  const auto dk_dv = args.large_dk_dv ? launch_dk_dv<D, 1> : launch_dk_dv<D, 2>;
  dq(args, on);
  dk_dv(args, on);
}

}  // namespace
}  // namespace coarse

void launch(const CoarseBackward& p, const Launch& on) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.D == 64 || p.D == 96 || p.D == 128, "D must be 64, 96 or 128");
  if (p.B * p.Nq * p.Nk == 0) {
    const auto clear = [&](float* x, int64_t rows) {
      check(cudaMemsetAsync(x, 0, static_cast<size_t>(rows * p.D) * sizeof(float), on.stream), "cudaMemsetAsync");
    };
    clear(p.dq, p.B * p.Nq * p.H), clear(p.dk, p.B * p.Nk * p.Hkv), clear(p.dv, p.B * p.Nk * p.Hkv);
    return;
  }
  const int64_t group = p.H / p.Hkv, row_stride = coarse::padded_row(p.Nk);
  coarse::BackwardArgs args{};
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(group);
  args.Nq = static_cast<int32_t>(p.Nq), args.Nk = static_cast<int32_t>(p.Nk);
  args.large_dq = coarse::large_blocks(p.B * p.H, p.Nq), args.large_dk_dv = coarse::large_blocks(p.B * p.Hkv, p.Nk);
  args.scale = p.scale;
  args.q = p.q, args.k = p.k, args.v = p.v, args.output = p.output, args.lse = p.lse, args.doutput = p.doutput;
  args.dq = p.dq, args.dk = p.dk, args.dv = p.dv;
  float *scores = nullptr, *dscores = nullptr;
  coarse::in_portions(p.B * p.H, group, p.Nq, row_stride, [&](const coarse::Portion& portion) {
    const auto stride = static_cast<int32_t>(row_stride);
    const int64_t head_stride = portion.rows * row_stride, floats = portion.heads * head_stride;
    if (dscores == nullptr) {  // the first portion is the largest
      dscores = on.scratch_of<float>(floats);
      if (p.scores == nullptr) scores = on.scratch_of<float>(floats);
    }
    VSA_CHECK(head_stride <= INT32_MAX, "a head's scores must have fewer than 2^31 elements");
    args.dscores = {dscores, head_stride, stride};
    if (p.scores == nullptr) {
      args.scores = {scores, head_stride, stride};
      coarse::launch_scores(p, portion, args.scores, on);
    } else {
      const int64_t first = (portion.first_head * p.Nq + portion.first_row) * row_stride;
      args.scores = {const_cast<float*>(p.scores) + first, p.Nq * row_stride, stride};  // read only
    }
    args.first_head = static_cast<int32_t>(portion.first_head);
    args.first_row = static_cast<int32_t>(portion.first_row), args.rows = static_cast<int32_t>(portion.rows);
    args.heads_each = static_cast<int32_t>(std::min(portion.heads, group));
    args.key_heads = static_cast<int32_t>(portion.heads) / args.heads_each;
    args.add = portion.first_head % group != 0 || portion.first_row != 0;
    const auto launch = p.D == 64   ? coarse::launch_for<64>
                        : p.D == 96 ? coarse::launch_for<96>
                                    : coarse::launch_for<128>;
    launch(args, on);
  });
}

}  // namespace vsa::cuda
