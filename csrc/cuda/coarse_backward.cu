#include <cmath>

#include "cuda/chain.h"
#include "cuda/check.h"
#include "cuda/coarse_scores.cuh"
#include "cuda/coarse_tensor.cuh"
#include "cuda/kernel_attributes.h"
#include "cuda/ptx/cp_async.h"

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

// Columns of the panels that values and keys pass through shared memory in: two panels and all columns of the gradients
// have to fit into what a block may have on every GPU.
template <int D>
inline constexpr int kPanelColumns = D % 64 == 0 ? 64 : 32;

template <int D>
struct DqShared {
  static constexpr int kMostRows = 64;
  using Gradients = Matrix<kMostRows, D>;
  using Panel = Matrix<kStepKeys, kPanelColumns<D>>;
  alignas(128) unsigned char gradients[Gradients::kBytes];
  alignas(128) unsigned char panels[2][Panel::kBytes];
  float lse[kMostRows], delta[kMostRows];  // of the rows
  // What is needed once a step: scores and their gradients from the first row on, and how many rows exist.
  const float* scores;
  float* dscores;
  int rows;
};

// A block has the rows of a few warps; groups of warps have the same rows and share out the keys of every step. A step
// is the panels of the values, then those of the keys; while all are busy with one, the next comes.
template <int D, int kGroups>
__global__ void __launch_bounds__(kThreads, 1) coarse_dq(const __grid_constant__ BackwardArgs p) {
  constexpr int kRowWarps = kThreads / 32 / kGroups, kRows = kWarpRows * kRowWarps, kGroupThreads = 32 * kRowWarps;
  constexpr int kKeys = kStepKeys / kGroups, kSteps = kKeys / 8;  // of a group
  using Shared = DqShared<D>;
  using Gradients = typename Shared::Gradients;
  using Panel = typename Shared::Panel;
  constexpr int kPanels = D / Panel::kColumns;
  static_assert((kGroups - 1) * kGroupThreads * (D / 2) * 4 <= sizeof(Shared), "sums fit");
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory);

  const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads, warp = thread / 32;
  const Lane lane;
  const int64_t key_stride = int64_t{p.H / p.group} * D, query_stride = int64_t{p.H} * D;
  const int steps = (p.Nk + kStepKeys - 1) / kStepKeys;

  int64_t key_head;
  {
    const Queries queries(p.H, p.first_head, p.blocks, kRows, warp);
    key_head = queries.b * p.Nk * key_stride + queries.h / p.group * D;
    const int64_t head = (int64_t{queries.b} * p.Nq + p.first_row) * query_stride + queries.h * D;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int row = lane.row + 8 * r, at = min(queries.first + row, p.rows - 1);
      const float delta =
          dot<D>(p.output + head + at * query_stride, p.doutput + head + at * query_stride, lane.column);
      if (group > 0 || lane.column > 0) continue;
      shared.lse[warp * kWarpRows + row] = subtrahend(p.lse[int64_t{queries.head} * p.Nq + p.first_row + at]);
      shared.delta[warp * kWarpRows + row] = delta;
    }
    if (threadIdx.x == 0) {
      shared.scores =
          p.scores.first + queries.index * p.scores.head_stride + int64_t{queries.first} * p.scores.row_stride;
      shared.dscores =
          p.dscores.first + queries.index * p.dscores.head_stride + int64_t{queries.first} * p.dscores.row_stride;
      shared.rows = p.rows - queries.first;
    }
    const float* const doutput = p.doutput + head;
    const int first = queries.first - warp * kWarpRows;
    Fetched<Gradients, kThreads> gradients;
#pragma unroll
    for (int share = 0; share < gradients.kShares; ++share) {
      gradients.load(share, threadIdx.x, [&](int row) {
        return row < kRows && first + row < p.rows ? doutput + (first + row) * query_stride : nullptr;
      });
      gradients.store(share, threadIdx.x, shared.gradients);
    }
  }
  const uint32_t own_gradients = Gradients::by_rows(ptx::shared_address(shared.gradients), warp * kWarpRows);

  // Panels are counted through a step: those of the values, those of the keys, then the next step's. Beyond the last
  // step they are zeros, for nobody.
  Fetched<Panel, kThreads> next;
  const auto load = [&](int step, int panel, int share) {
    const float* const from =
        (panel < kPanels || panel >= 2 * kPanels ? p.v : p.k) + key_head + panel % kPanels * Panel::kColumns;
    const int first = (step + panel / (2 * kPanels)) * kStepKeys;
    next.load(share, threadIdx.x,
              [&](int row) { return first + row < p.Nk ? from + (first + row) * key_stride : nullptr; });
  };
  const auto store = [&](int panel, int share) { next.store(share, threadIdx.x, shared.panels[panel % 2]); };
#pragma unroll
  for (int share = 0; share < next.kShares; ++share) load(0, 0, share), store(0, share);

  float sum[D / 8][4] = {};
  const float one[2] = {1, 1};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    const int key = step * kStepKeys + group * kKeys + 2 * lane.column, left = p.Nk - key;
    // The lane's places in a matrix; use(t, r, place) for those that exist.
    const auto each_place = [&](auto* matrix, int row_stride, const auto& use) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int row = warp * kWarpRows + lane.row + 8 * r;
        auto* const at = matrix + int64_t{row} * row_stride + key;
#pragma unroll
        for (int t = 0; t < kSteps; ++t) {
          if (row < shared.rows && 8 * t < left) use(t, r, at + 8 * t);
        }
      }
    };
    float s[kSteps][4], ds[kSteps][4] = {};
    const auto read_scores = [&] {
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[t][e] = 0;
      }
      each_place(shared.scores, p.scores.row_stride, [&](int t, int r, const float* at) {
        const float2 x = *reinterpret_cast<const float2*>(at);
        s[t][2 * r] = x.x, s[t][2 * r + 1] = x.y;
      });
    };
    const auto differentiate = [&] {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float lse = shared.lse[warp * kWarpRows + lane.row + 8 * r];
        const float delta = shared.delta[warp * kWarpRows + lane.row + 8 * r];
#pragma unroll
        for (int t = 0; t < kSteps; ++t) {
#pragma unroll
          for (int e = 0; e < 2; ++e) {
            const float score = 8 * t + e < left ? s[t][2 * r + e] : -INFINITY;  // of no key: a probability of 0
            float& x = ds[t][2 * r + e];
            x = expf(score - lse) * (x - delta);
          }
        }
      }
      each_place(shared.dscores, p.dscores.row_stride, [&](int t, int r, float* at) {
        *reinterpret_cast<float2*>(at) = make_float2(ds[t][2 * r], ds[t][2 * r + 1]);
      });
    };
    // Multiplies with a panel, multiply(group of columns), while the next one comes.
    const auto pass = [&](int panel, const auto& multiply) {
      __syncthreads();  // this panel is here, and nobody reads the one before any more
#pragma unroll
      for (int share = 0; share < next.kShares; ++share) {
        load(step, panel + 1, share);
        multiply(share);
        if (never()) break;
        store(panel + 1, share);
      }
    };
    // A step has an even number of panels.
    const uint32_t panels = ptx::shared_address(shared.panels);
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      const uint32_t values = Panel::by_columns(panels + panel % 2 * Panel::kBytes, group * kKeys);
      pass(panel, [&](int columns) {
        if (panel == kPanels - 1 && columns == 0) read_scores();
        multiply_columns<Gradients, Panel>(ds, own_gradients, panel * (Panel::kColumns / 8), values, columns);
      });
    }
    differentiate();
    Left mine[kSteps / 2];
#pragma unroll
    for (int t = 0; t < kSteps / 2; ++t) mine[t].take(ds[2 * t], ds[2 * t + 1]);
#pragma unroll
    for (int panel = 0; panel < kPanels; ++panel) {
      const uint32_t keys = Panel::by_rows(panels + (kPanels + panel) % 2 * Panel::kBytes, group * kKeys);
      pass(kPanels + panel,
           [&](int columns) { multiply_rows<Panel>(sum, panel * (Panel::kColumns / 8), one, mine, keys, columns); });
    }
  }

  __syncthreads();  // all are done with shared memory
  float* const sums = reinterpret_cast<float*>(memory);
  if (group > 0) put_sum<D>(sums + (group - 1) * kGroupThreads * (D / 2), sum, thread, kGroupThreads);
  __syncthreads();
  if (group > 0) return;
#pragma unroll 1
  for (int other = 0; other < kGroups - 1; ++other) {
    add_sum<D>(sum, one, sums + other * kGroupThreads * (D / 2), one, thread, kGroupThreads);
  }
  const Queries queries(p.H, p.first_head, p.blocks, kRows, warp);
  const float factor[2] = {p.scale, p.scale};
  float* const dq = p.dq + (int64_t{queries.b} * p.Nq + p.first_row) * query_stride + queries.h * D;
  write_rows<D>(dq, query_stride, queries.first, p.rows, sum, factor, false);
}

template <int D>
struct DkDvShared {
  using Stage = Matrix<2 * kStepQueries, D>;  // rows of output gradients, then queries
  alignas(128) unsigned char stages[2][Stage::kBytes];
  float lse[2][kStepQueries];
};

// A block has the keys of a few warps, and each warp's keys twice: for dv and for dk. Groups of warps have the same
// keys and share out the queries of every step. The two matrices come transposed from memory, eight keys of a row at a
// time; output gradients and queries come to two stages of shared memory a step ahead.
template <int D, int kGroups>
__global__ void __launch_bounds__(kThreads, 1) coarse_dk_dv(const __grid_constant__ BackwardArgs p) {
  constexpr int kRowWarps = kThreads / 64 / kGroups, kRows = kWarpRows * kRowWarps, kPartThreads = 32 * kRowWarps;
  constexpr int kQueries = kStepQueries / kGroups, kSteps = kQueries / 8;  // of a group
  using Shared = DkDvShared<D>;
  using Stage = typename Shared::Stage;
  static_assert((kGroups - 1) * kThreads / kGroups * (D / 2) * 4 <= sizeof(Shared), "sums fit");
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory);

  const int index = static_cast<int>(blockIdx.x) / p.blocks, key_head = p.first_head / p.group + index;
  const int Hkv = p.H / p.group, b = key_head / Hkv, kv = key_head - b * Hkv;
  const int part = threadIdx.x / kPartThreads, thread = threadIdx.x % kPartThreads;
  const bool keys = part % 2 == 1;  // has dk
  const int group = part / 2;
  const Lane lane;
  const int row = (static_cast<int>(blockIdx.x) - index * p.blocks) * kRows + thread / 32 * kWarpRows;
  const int first_head = index * p.heads_each;  // of the portion's
  const int steps = p.heads_each * ((p.rows + kStepQueries - 1) / kStepQueries);
  const int64_t query_stride = int64_t{p.H} * D;

  // A step is some queries of one head: the next one to come.
  struct Step {
    int head = 0, first = 0;
    __device__ __forceinline__ void advance(int rows) {
      first += kStepQueries;
      if (first >= rows) first = 0, ++head;
    }
  } next;
  const int64_t at =
      (int64_t{b} * p.Nq + p.first_row) * query_stride + int64_t{p.first_head + first_head - b * p.H} * D;
  Fetched<Stage, kThreads> rows;
  const auto load = [&](int share) {
    const int count = next.head < p.heads_each ? p.rows : 0;  // beyond the last step: zeros, for nobody
    rows.load(share, threadIdx.x, [&](int row) {
      const int query = next.first + row % kStepQueries;
      const float* const from = (row < kStepQueries ? p.doutput : p.q) + at + next.head * D;
      return query < count ? from + query * query_stride : nullptr;
    });
  };
  const auto store = [&](int stage, int share) { rows.store(share, threadIdx.x, shared.stages[stage]); };
  const auto load_lse = [&](int stage) {
    if (threadIdx.x >= kStepQueries) return;
    float* const to = &shared.lse[stage][threadIdx.x];
    const int query = next.first + static_cast<int>(threadIdx.x);
    if (query < p.rows && next.head < p.heads_each) {
      ptx::cp_async_4(ptx::shared_address(to),
                      p.lse + int64_t{p.first_head + first_head + next.head} * p.Nq + p.first_row + query);
    } else {
      *to = INFINITY;  // probabilities are 0
    }
  };
  float given[kSteps][4];  // scores, or their gradients
  const auto read = [&] {
    const int first = next.first + group * kQueries + 2 * lane.column;
    const int left = next.head < p.heads_each ? p.rows - first : 0, keys_left = p.Nk - row - lane.row;
    const Scores& from = keys ? p.dscores : p.scores;
    const float* const matrix = from.first + (first_head + next.head) * from.head_stride + row + lane.row;
#pragma unroll
    for (int t = 0; t < kSteps; ++t) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float* const x = matrix + int64_t{first + 8 * t + e} * from.row_stride;
        given[t][e] = given[t][2 + e] = 0;
        if (8 * t + e < left && keys_left > 0) given[t][e] = x[0];
        if (8 * t + e < left && keys_left > 8) given[t][2 + e] = x[8];
      }
    }
  };

  read();
  load_lse(0);
#pragma unroll
  for (int share = 0; share < rows.kShares; ++share) load(share), store(0, share);
  next.advance(p.rows);
  const uint32_t own_rows =
      Stage::by_rows(ptx::shared_address(shared.stages), (keys ? kStepQueries : 0) + group * kQueries);
  float sum[D / 8][4] = {};
  const float one[2] = {1, 1};
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    ptx::cp_async_wait_all();
    __syncthreads();  // this step's rows are here, and nobody reads those of the one before any more
    const float* const my_lse = shared.lse[step % 2] + group * kQueries + 2 * lane.column;
    if (!keys) {  // scores become probabilities
#pragma unroll
      for (int t = 0; t < kSteps; ++t) {
#pragma unroll
        for (int e = 0; e < 4; ++e) given[t][e] = expf(given[t][e] - subtrahend(my_lse[8 * t + e % 2]));
      }
    }
    Left mine[kSteps / 2];
#pragma unroll
    for (int t = 0; t < kSteps / 2; ++t) mine[t].take(given[2 * t], given[2 * t + 1]);
    load_lse((step + 1) % 2);
#pragma unroll
    for (int share = 0; share < rows.kShares; ++share) {
      load(share);
      if (share == 0) read();
      multiply_rows<Stage>(sum, 0, one, mine, own_rows + step % 2 * Stage::kBytes, share);
      if (never()) break;
      store((step + 1) % 2, share);
    }
    next.advance(p.rows);
  }

  if constexpr (kGroups > 1) {
    float* const sums = reinterpret_cast<float*>(memory);
    __syncthreads();  // all are done with shared memory
    if (group > 0) put_sum<D>(sums + (part - 2) * kPartThreads * (D / 2), sum, thread, kPartThreads);
    __syncthreads();
    if (group > 0) return;
#pragma unroll 1
    for (int other = 0; other < kGroups - 1; ++other) {
      add_sum<D>(sum, one, sums + (2 * other + part) * kPartThreads * (D / 2), one, thread, kPartThreads);
    }
  }
  const float scale = keys ? p.scale : 1.0f, factor[2] = {scale, scale};
  const int64_t to = (int64_t{b} * p.Nk * Hkv + kv) * D;
  write_rows<D>((keys ? p.dk : p.dv) + to, int64_t{Hkv} * D, row, p.Nk, sum, factor, p.add);
}

template <int D, int kGroups>
void launch_dq(BackwardArgs args, const Launch& on) {
  constexpr int kRows = kWarpRows * kThreads / 32 / kGroups, kShared = sizeof(DqShared<D>);
  static_assert(kShared <= 99 * 1024, "what a block may have on every GPU");
  args.blocks = (args.rows + kRows - 1) / kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.heads_each * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  allow_shared_memory(coarse_dq<D, kGroups>, kShared, "coarse_dq");
  launch_kernel(coarse_dq<D, kGroups>, "coarse_dq", on, static_cast<unsigned>(blocks), kThreads, kShared, args);
}

template <int D, int kGroups>
void launch_dk_dv(BackwardArgs args, const Launch& on) {
  constexpr int kRows = kWarpRows * kThreads / 64 / kGroups, kShared = sizeof(DkDvShared<D>);
  static_assert(kShared <= 99 * 1024, "what a block may have on every GPU");
  args.blocks = (args.Nk + kRows - 1) / kRows;
  const int64_t blocks = int64_t{args.key_heads} * args.blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many key tiles for a launch");
  allow_shared_memory(coarse_dk_dv<D, kGroups>, kShared, "coarse_dk_dv");
  launch_kernel(coarse_dk_dv<D, kGroups>, "coarse_dk_dv", on, static_cast<unsigned>(blocks), kThreads, kShared, args);
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
      check(cudaMemsetAsync(x, 0, static_cast<size_t>(rows * p.D) * sizeof(float), on.stream()), "cudaMemsetAsync");
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
