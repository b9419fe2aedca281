#include <algorithm>
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

constexpr int kWarps = 16, kThreads = 32 * kWarps;
constexpr int kStepKeys = 64, kStageQueries = 32;

struct BackwardArgs {
  int32_t H, group, Nq, Nk;  // group: query heads that share a key head
  int32_t first_head, first_row, rows;
  int32_t key_heads, heads_each;  // of the portion: key heads, and query heads of each
  int32_t blocks;                 // of a head
  bool large_dk_dv;               // blocks
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

// How the warps of a block of coarse_dq share its work: kRowWarps times 16 queries, kParts of a step's keys, then as
// many parts of the columns of dq.
template <int D, int kRowWarps>
struct QueryShape {
  static constexpr int kRows = kWarpRows * kRowWarps, kParts = kWarps / kRowWarps;
  static constexpr int kKeyBlocks = kStepKeys / 8 / kParts, kColumnBlocks = (D / 8 + kParts - 1) / kParts;
  static constexpr int kPitchS = kStepKeys + 8;  // floats of a row of score gradients: pairs lie in different banks
  static constexpr int kTile = kStepKeys * kPitch<D>;
  static constexpr int kFloats = 2 * kTile + kRows * (kPitch<D> + kPitchS + 2);
};

// dq += ds k for a step: ds in shared memory at the lane's row g and column 2 c, k at its row 2 c and column g.
template <int D, int kCount, int kPitchS>
__device__ __forceinline__ void multiply_step_keys(float (&sum)[kCount][4], const float* ds, const float* k) {
#pragma unroll
  for (int first = 0; first < kStepKeys; first += 32) {
    float large[kCount][4] = {}, small[kCount][4] = {};
#pragma unroll
    for (int key = first; key < first + 32; key += 8) {
      const float2 upper = *reinterpret_cast<const float2*>(ds + key);
      const float2 lower = *reinterpret_cast<const float2*>(ds + 8 * kPitchS + key);
      const float left[4] = {upper.x, upper.y, lower.x, lower.y};
      float x[kCount][2];
#pragma unroll
      for (int n = 0; n < kCount; ++n) x[n][0] = k[key * kPitch<D> + 8 * n], x[n][1] = k[(key + 1) * kPitch<D> + 8 * n];
      multiply_step(large, small, LeftBlock(left), x);
    }
#pragma unroll
    for (int n = 0; n < kCount; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[n][e] += large[n][e] + small[n][e];
    }
  }
}

// In a step a warp has the products of its queries with a part of the keys; then all exchange the gradients of the
// scores, and it has a part of dq's columns. There is room for one step's values and one step's keys: the next ones of
// either come while it is busy with the other. Sums have the same order whatever the shape.
template <int D, int kRowWarps>
__global__ void __launch_bounds__(kThreads, 1) coarse_dq(const __grid_constant__ BackwardArgs p) {
  using S = QueryShape<D, kRowWarps>;
  extern __shared__ float4 memory[];
  float* const values = reinterpret_cast<float*>(memory);
  float* const keys = values + S::kTile;
  float* const gradients = keys + S::kTile;
  float* const exchange = gradients + S::kRows * kPitch<D>;
  float* const deltas = exchange + S::kRows * S::kPitchS;
  float* const lses = deltas + S::kRows;

  const int index = static_cast<int>(blockIdx.x) / p.blocks, head = p.first_head + index;
  const int b = head / p.H, h = head - b * p.H, Hkv = p.H / p.group;
  const int warp = threadIdx.x / 32, part = warp / kRowWarps;
  const Lane lane;
  const int first_row = (static_cast<int>(blockIdx.x) - index * p.blocks) * S::kRows;  // of the portion
  const int warp_row = warp % kRowWarps * kWarpRows, row = first_row + warp_row;
  const int64_t key_head = (int64_t{b} * p.Nk * Hkv + h / p.group) * D, key_stride = int64_t{Hkv} * D;
  const int64_t query_stride = int64_t{p.H} * D;
  const int64_t query_head = (int64_t{b} * p.Nq * p.H + h) * D + p.first_row * query_stride;

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

  copy_rows<D, S::kRows, kThreads>(gradients, p.doutput + query_head, query_stride, first_row, p.rows, threadIdx.x);
  load_values(0);
  if (threadIdx.x < 8 * S::kRows) {  // eight threads a row
    const int r = threadIdx.x / 8, at = min(first_row + r, p.rows - 1);
    const int64_t from = query_head + at * query_stride + threadIdx.x % 8 * 4;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < D; i += 32) {
      const float4 x = *reinterpret_cast<const float4*>(p.output + from + i);
      const float4 y = *reinterpret_cast<const float4*>(p.doutput + from + i);
      sum = fmaf(x.x, y.x, fmaf(x.y, y.y, fmaf(x.z, y.z, fmaf(x.w, y.w, sum))));
    }
#pragma unroll
    for (int distance = 1; distance < 8; distance *= 2) sum += __shfl_xor_sync(~0u, sum, distance);
    if (threadIdx.x % 8 == 0) {
      deltas[r] = sum;
      lses[r] = subtrahend(p.lse[int64_t{head} * p.Nq + p.first_row + at]);
    }
  }
  int64_t score_row[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int at = min(row + lane.row + 8 * r, p.rows - 1);
    score_row[r] = int64_t{at} * p.scores.row_stride + part * S::kKeyBlocks * 8 + 2 * lane.column;
  }
  const float* const scores = p.scores.first + index * p.scores.head_stride;
  float* const dscores = p.dscores.first + index * p.dscores.head_stride;
  meet();
  load_keys(0);
  float lse[2], delta[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    lse[r] = lses[warp_row + lane.row + 8 * r], delta[r] = deltas[warp_row + lane.row + 8 * r];
  }
  float* const my_exchange = exchange + (warp_row + lane.row) * S::kPitchS + 2 * lane.column;

  float sum[S::kColumnBlocks][4] = {};
  const int first_block = part * S::kColumnBlocks;
  const bool has_columns = D / 8 % S::kColumnBlocks == 0 && D / 8 / S::kColumnBlocks == S::kParts
                               ? true
                               : first_block < D / 8;  // known where all warps have some
  const int steps = (p.Nk + kStepKeys - 1) / kStepKeys;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int left = p.Nk - step * kStepKeys - part * S::kKeyBlocks * 8 - 2 * lane.column;
    float s[S::kKeyBlocks][4], ds[S::kKeyBlocks][4];
#pragma unroll
    for (int t = 0; t < S::kKeyBlocks; ++t) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 x = make_float2(0, 0);
        if (8 * t < left) x = *reinterpret_cast<const float2*>(scores + score_row[r] + step * kStepKeys + 8 * t);
        s[t][2 * r] = x.x, s[t][2 * r + 1] = x.y;
      }
    }
    multiply_columns<D>(ds, gradients + warp_row * kPitch<D> + columns_place<D>(lane),
                        values + part * S::kKeyBlocks * 8 * kPitch<D> + columns_place<D>(lane));
#pragma unroll
    for (int t = 0; t < S::kKeyBlocks; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float probability = expf(s[t][e] - lse[e / 2]);
        ds[t][e] = 8 * t + e % 2 < left ? probability * (ds[t][e] - delta[e / 2]) : 0.0f;
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float2 x = make_float2(ds[t][2 * r], ds[t][2 * r + 1]);
        *reinterpret_cast<float2*>(my_exchange + 8 * r * S::kPitchS + part * S::kKeyBlocks * 8 + 8 * t) = x;
        if (row + lane.row + 8 * r < p.rows && 8 * t < left) {
          *reinterpret_cast<float2*>(dscores + score_row[r] + step * kStepKeys + 8 * t) = x;
        }
      }
    }
    meet();  // this step's keys and all gradients are here, and all are done with the values
    if (step + 1 < steps) load_values(step + 1);
    if (has_columns) {
      multiply_step_keys<D, S::kColumnBlocks, S::kPitchS>(sum, my_exchange,
                                                          keys + first_block * 8 + rows_place<D>(lane));
    }
    meet();  // the next values are here, and all are done with keys and gradients
    if (step + 1 < steps) load_keys(step + 1);
  }
  const float factor[2] = {p.scale, p.scale};
  if (has_columns) {
    write_rows(p.dq + query_head + first_block * 8, query_stride, row, p.rows, sum, factor, false);
  }
}

// What a block of coarse_dk_dv goes through: where the first of its query heads begins.
struct QueryHead {
  const float* doutput;
  const float* q;
  const float* lse;
  const float* scores;
  const float* dscores;
};

// How the warps of a block of coarse_dk_dv share its work: kRowWarps times 16 keys, kParts of the columns, dv or dk,
// kGroups of the queries of a step. A stage of queries has one or two steps, in which a group has up to 16 of them, for
// the sake of registers.
template <int D, int kRowWarps>
struct KeyShape {
  static constexpr int kRows = kWarpRows * kRowWarps, kParts = D == 64 ? 1 : 2, kColumns = D / kParts;
  static constexpr int kGroups = kWarps / (2 * kRowWarps * kParts), kGroupThreads = kThreads / kGroups;
  static constexpr int kQueries = std::min(kStageQueries / kGroups, 16), kStepQueries = kQueries * kGroups;
  static constexpr int kStageSteps = kStageQueries / kStepQueries;
  static constexpr int kOperand = kStageQueries * kPitch<D>;  // floats
  static constexpr int kSums = kGroupThreads * kColumns / 2;  // of a group
  static constexpr int kFloats = std::max(4 * kOperand + 2 * kStageQueries, (kGroups - 1) * kSums);
  static constexpr int kSharedBytes = 4 * kFloats + sizeof(QueryHead);
};

// The two matrices come transposed from memory, eight keys of a row at a time; output gradients and queries through two
// stages of shared memory, a stage ahead.
template <int D, int kRowWarps>
__global__ void __launch_bounds__(kThreads, 1) coarse_dk_dv(const __grid_constant__ BackwardArgs p) {
  using S = KeyShape<D, kRowWarps>;
  constexpr int kSteps = S::kQueries / 8;
  extern __shared__ float4 memory[];
  float* const stages = reinterpret_cast<float*>(memory);
  float* const lses = stages + 4 * S::kOperand;  // two stages of them
  auto& heads = *reinterpret_cast<QueryHead*>(stages + S::kFloats);

  const int index = static_cast<int>(blockIdx.x) / p.blocks, key_head = p.first_head / p.group + index;
  const int Hkv = p.H / p.group, b = key_head / Hkv, kv = key_head - b * Hkv;
  const int warp = threadIdx.x / 32, part = warp / kRowWarps % S::kParts;
  const bool keys = warp / (kRowWarps * S::kParts) % 2 == 1;  // has dk
  const int group = warp / (2 * kRowWarps * S::kParts);
  const Lane lane;
  const int row = (static_cast<int>(blockIdx.x) - index * p.blocks) * S::kRows + warp % kRowWarps * kWarpRows;
  if (threadIdx.x == 0) {
    const int first = index * p.heads_each, head = p.first_head + first;  // of the portion, of all
    const int64_t query = ((int64_t{b} * p.Nq + p.first_row) * p.H + (head - b * p.H)) * D;
    heads = {p.doutput + query, p.q + query, p.lse + int64_t{head} * p.Nq + p.first_row,
             p.scores.first + first * p.scores.head_stride, p.dscores.first + first * p.dscores.head_stride};
  }
  __syncthreads();

  // A stage is some queries of one head.
  const int chunks = (p.rows + kStageQueries - 1) / kStageQueries, stage_count = p.heads_each * chunks;
  const auto load = [&](int stage) {
    const int head = stage / chunks, first = (stage - head * chunks) * kStageQueries;
    float* const to = stages + stage % 2 * (2 * S::kOperand);
    const int64_t stride = int64_t{p.H} * D;
    copy_rows<D, kStageQueries, kThreads>(to, heads.doutput + head * D, stride, first, p.rows, threadIdx.x);
    copy_rows<D, kStageQueries, kThreads>(to + S::kOperand, heads.q + head * D, stride, first, p.rows, threadIdx.x);
    if (threadIdx.x < kStageQueries) {
      const int query = min(first + static_cast<int>(threadIdx.x), p.rows - 1);
      ptx::cp_async_4(ptx::shared_address(lses + stage % 2 * kStageQueries + threadIdx.x),
                      heads.lse + int64_t{head} * p.Nq + query);
    }
    ptx::cp_async_commit();
  };
  const auto first_of = [&](int step) { return step % S::kStageSteps * S::kStepQueries + group * S::kQueries; };
  int columns[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) columns[r] = min(row + lane.row + 8 * r, p.Nk - 1);
  float next[kSteps][4];
  const auto read = [&](int step) {
    const int stage = step / S::kStageSteps, head = stage / chunks;
    const int first = (stage - head * chunks) * kStageQueries + first_of(step) + 2 * lane.column;
    const float* const matrix = keys ? heads.dscores + head * p.dscores.head_stride  //
                                     : heads.scores + head * p.scores.head_stride;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float* const x = matrix + int64_t{min(first + 8 * t + e, p.rows - 1)} * p.scores.row_stride;
        next[t][e] = x[columns[0]], next[t][2 + e] = x[columns[1]];
      }
    }
  };

  load(0);
  read(0);
  float sum[S::kColumns / 8][4] = {};
  const float one[2] = {1, 1};
  const int steps = stage_count * S::kStageSteps;
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int stage = step / S::kStageSteps;
    if (step % S::kStageSteps == 0) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // this stage's rows are here, and nobody reads those of the one before any more
      if (stage + 1 < stage_count) load(stage + 1);
    }
    const int left = p.rows - stage % chunks * kStageQueries - first_of(step) - 2 * lane.column;
    const float* const lse = lses + stage % 2 * kStageQueries + first_of(step) + 2 * lane.column;
    float x[kSteps][4];
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int query = 8 * t + e % 2;  // from the lane's first on
        const float given = next[t][e], value = keys ? given : expf(given - subtrahend(lse[query]));
        x[t][e] = query < left ? value : 0.0f;
      }
    }
    if (step + 1 < steps) read(step + 1);
    multiply_rows<D, S::kColumns>(sum, one, x,
                                  stages + (stage % 2 * 2 + (keys ? 1 : 0)) * S::kOperand + first_of(step) * kPitch<D> +
                                      part * S::kColumns + rows_place<D>(lane));
  }

  if constexpr (S::kGroups > 1) {
    const int thread = threadIdx.x % S::kGroupThreads;
    __syncthreads();  // the stages are free
    if (group > 0) put_sum(stages + (group - 1) * S::kSums, sum, thread, S::kGroupThreads);
    __syncthreads();
    if (group > 0) return;
#pragma unroll 1
    for (int other = 0; other < S::kGroups - 1; ++other) {
      add_sum(sum, one, stages + other * S::kSums, one, thread, S::kGroupThreads);
    }
  }
  const float scale = keys ? p.scale : 1.0f, factor[2] = {scale, scale};
  const int64_t to = (int64_t{b} * p.Nk * Hkv + kv) * D + part * S::kColumns;
  write_rows((keys ? p.dk : p.dv) + to, int64_t{Hkv} * D, row, p.Nk, sum, factor, p.add);
}

template <int D, int kRowWarps>
void launch_dq(BackwardArgs args, const Launch& on) {
  using S = QueryShape<D, kRowWarps>;
  args.blocks = (args.rows + S::kRows - 1) / S::kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.heads_each * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  allow_shared_memory(coarse_dq<D, kRowWarps>, 4 * S::kFloats, "coarse_dq");
  coarse_dq<D, kRowWarps><<<static_cast<unsigned>(blocks), kThreads, 4 * S::kFloats, on.stream>>>(args);
  check_launch("coarse_dq");
}

template <int D, int kRowWarps>
void launch_dk_dv(BackwardArgs args, const Launch& on) {
  using S = KeyShape<D, kRowWarps>;
  static_assert(S::kSharedBytes <= 99 * 1024, "what a block may have on every GPU");
  args.blocks = (args.Nk + S::kRows - 1) / S::kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many key tiles for a launch");
  allow_shared_memory(coarse_dk_dv<D, kRowWarps>, S::kSharedBytes, "coarse_dk_dv");
  coarse_dk_dv<D, kRowWarps><<<static_cast<unsigned>(blocks), kThreads, S::kSharedBytes, on.stream>>>(args);
  check_launch("coarse_dk_dv");
}

template <int D>
void launch_for(const BackwardArgs& args, const Launch& on) {
  static_assert(4 * QueryShape<D, 2>::kFloats <= 99 * 1024, "what a block may have on every GPU");
  const int64_t heads = int64_t{args.key_heads} * args.heads_each, large_bytes = 4 * QueryShape<D, 4>::kFloats;
  const bool large = on.shared_memory >= large_bytes && large_blocks(heads, args.rows);
  (large ? launch_dq<D, 4> : launch_dq<D, 2>)(args, on);
  (args.large_dk_dv ? launch_dk_dv<D, 4> : launch_dk_dv<D, 2>)(args, on);
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
  args.large_dk_dv = coarse::large_blocks(p.B * p.Hkv, p.Nk);
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
