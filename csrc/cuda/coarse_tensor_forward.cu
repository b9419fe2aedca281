#include <algorithm>
#include <cfloat>

#include "cuda/check.h"
#include "cuda/coarse_tensor.cuh"
#include "cuda/ptx/named_barrier.h"

// A block has some rows of queries, a warp 16 of them. Several groups of its warps have the same rows and share out the
// key tiles, each with an online softmax of its own (flash attention); at the end the groups' sums are joined in order.
// A group has room for one tile of keys and one of values: the next keys come while it is busy with values, and the
// other way round.
namespace vsa::cuda::coarse {
namespace {

constexpr float kProbabilityUnits = 16384;  // a probability of 1 as an fp16 operand

struct Args {
  int32_t H, group, Nq, Nk;  // group: query heads that share a key head
  int32_t row_blocks;
  float scale;
  Split from;
  float* output;  // [B, Nq, H, D]
  float* lse;     // [B, H, Nq]
};

template <int D, int kRowWarps, int kGroups>
struct Shared {
  alignas(16) unsigned char q[16 * kRowWarps * kPitch<D>];
  struct {
    alignas(16) unsigned char k[kTile * kPitch<D>], v[kTile * kPitch<D>];
  } tiles[kGroups];
  alignas(16) KeyRow key_rows[kGroups][2][kTile];
  alignas(16) float statistics[kGroups][kRowWarps][32][4];  // maximum and total of a lane's two rows
  float scratch[kRowWarps * kGroups];
};

template <int D, int kRowWarps, int kGroups>
__global__ void __launch_bounds__(32 * kRowWarps * kGroups, 1) coarse_forward_tensor(const __grid_constant__ Args p) {
  constexpr int kRows = 16 * kRowWarps, kGroupThreads = 32 * kRowWarps, kThreads = kGroupThreads * kGroups;
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<D, kRowWarps, kGroups>*>(memory);
  static_assert(sizeof(shared.tiles[0]) >= kRows * D * 4, "a group's sums fit its tiles");

  const int32_t head = blockIdx.x / p.row_blocks, first_row = (blockIdx.x - head * p.row_blocks) * kRows;
  const int32_t key_head = head / p.group;  // of all batches: the group divides H
  const int thread = threadIdx.x % kGroupThreads, group = threadIdx.x / kGroupThreads;
  const int warp = thread / 32, lane = threadIdx.x % 32;
  const __half* k = p.from.k + int64_t{key_head} * p.Nk * (2 * D);
  const __half* v = p.from.v + int64_t{key_head} * p.Nk * (2 * D);
  const KeyRow* key_rows = p.from.key_rows + int64_t{key_head} * p.Nk;
  const QueryRow* query_rows = p.from.query_rows + int64_t{head} * p.Nq;
  const int32_t tiles = (p.Nk + kTile - 1) / kTile;

  const uint32_t q_at = ptx::shared_address(shared.q), k_at = ptx::shared_address(shared.tiles[group].k);
  const uint32_t v_at = ptx::shared_address(shared.tiles[group].v);
  const auto load_keys = [&](int32_t tile, int parity) {
    copy_rows<D, kTile, kGroupThreads>(k_at, k, tile * kTile, p.Nk, thread);
    const int32_t row = tile * kTile + thread;
    if (thread < kTile) {
      ptx::cp_async_8(ptx::shared_address(&shared.key_rows[group][parity][thread]), key_rows + min(row, p.Nk - 1),
                      row < p.Nk);
    }
    ptx::cp_async_commit();
  };
  const auto load_values = [&](int32_t tile) {
    copy_rows<D, kTile, kGroupThreads>(v_at, v, tile * kTile, p.Nk, thread);
    ptx::cp_async_commit();
  };
  const auto meet = [&] {
    ptx::cp_async_wait<0>();
    ptx::named_barrier_sync(1 + group, kGroupThreads);
  };

  copy_rows<D, kRows, kThreads>(q_at, p.from.q + int64_t{head} * p.Nq * (2 * D), first_row, p.Nq, threadIdx.x);
  if (group < tiles) load_keys(group, 0);
  float largest = 0;
  for (int32_t i = threadIdx.x; i < p.Nk; i += kThreads) largest = fmaxf(largest, key_rows[i].vunit);
  const float value_unit = block_max<kThreads>(largest, shared.scratch);
  const float weight_unit = kProbabilityUnits / value_unit;
  float factor[2];  // of scores
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int32_t row = min(first_row + 16 * warp + lane / 4 + 8 * r, p.Nq - 1);
    factor[r] = query_rows[row].unit * p.scale;
  }
  ptx::cp_async_wait<0>();
  __syncthreads();
  if (group < tiles) load_values(group);

  const uint32_t my_q = q_at + warp * 16 * kPitch<D> + left_lane<D>();
  float sum[D / 8][4] = {}, maximum[2] = {-INFINITY, -INFINITY}, total[2] = {};
  int parity = 0;
#pragma unroll 1
  for (int32_t tile = group; tile < tiles; tile += kGroups, parity ^= 1) {
    Block s;
    multiply_rows<D, D / 16>(s, my_q, k_at + right_lane<D>());
    meet();  // this tile's values are here, and all are done with its keys
    if (tile + kGroups < tiles) load_keys(tile + kGroups, parity ^ 1);

    // Of the lane's columns 8 n + {0, 1}: {unit, value unit} twice.
    const auto columns = [&](int n) {
      return *reinterpret_cast<const float4*>(&shared.key_rows[group][parity][8 * n + lane % 4 * 2]);
    };
    const int32_t left = p.Nk - tile * kTile - lane % 4 * 2;  // columns that exist, from the lane's first on
    float reference[2], correction[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float most = -INFINITY;
#pragma unroll
      for (int n = 0; n < kTile / 8; ++n) {
        const float4 column = columns(n);
        s[n][2 * r] *= column.x, s[n][2 * r + 1] *= column.z;
        if (8 * n < left) most = fmaxf(most, s[n][2 * r] * factor[r]);  // passes over NaN, which reaches the total
        if (8 * n + 1 < left) most = fmaxf(most, s[n][2 * r + 1] * factor[r]);
      }
      most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
      most = fmaxf(maximum[r], fmaxf(most, __shfl_xor_sync(~0u, most, 2)));
      reference[r] = most == -INFINITY ? 0.0f : most;  // -inf - -inf would be NaN
      correction[r] = expf(maximum[r] - reference[r]);
      maximum[r] = most;
      total[r] *= correction[r];
    }
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      const float4 column = columns(n);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const bool exists = 8 * n + e % 2 < left;
        const float probability = exists ? expf(fmaf(s[n][e], factor[e / 2], -reference[e / 2])) : 0.0f;
        total[e / 2] += probability;
        s[n][e] = probability * ((e % 2 == 0 ? column.y : column.w) * weight_unit);
      }
    }
    multiply_block<D, false>(sum, correction, SplitBlock(s), v_at + summed_lane<D>());
    meet();  // the next keys are here, and all are done with the values
    if (tile + kGroups < tiles) load_values(tile + kGroups);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    total[r] += __shfl_xor_sync(~0u, total[r], 1);
    total[r] += __shfl_xor_sync(~0u, total[r], 2);
  }

  // A lane finds its own rows and columns of the other groups.
  auto* mine = reinterpret_cast<float4*>(&shared.tiles[group]) + warp * 32 + lane;
  if (group > 0) {
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      mine[n * kGroupThreads] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
    }
    *reinterpret_cast<float4*>(shared.statistics[group][warp][lane]) =
        make_float4(maximum[0], total[0], maximum[1], total[1]);
  }
  __syncthreads();
  if (group > 0) return;
#pragma unroll 1
  for (int other = 1; other < kGroups; ++other) {
    const float4 statistics = *reinterpret_cast<const float4*>(shared.statistics[other][warp][lane]);
    const float maxima[2] = {statistics.x, statistics.z}, totals[2] = {statistics.y, statistics.w};
    float weight[2], other_weight[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float most = fmaxf(maximum[r], maxima[r]), reference = most == -INFINITY ? 0.0f : most;
      weight[r] = expf(maximum[r] - reference), other_weight[r] = expf(maxima[r] - reference);
      maximum[r] = most;
      total[r] = fmaf(total[r], weight[r], totals[r] * other_weight[r]);
    }
    const auto* theirs = reinterpret_cast<const float4*>(&shared.tiles[other]) + warp * 32 + lane;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      const float4 x = theirs[n * kGroupThreads];
      sum[n][0] = fmaf(sum[n][0], weight[0], x.x * other_weight[0]);
      sum[n][1] = fmaf(sum[n][1], weight[0], x.y * other_weight[0]);
      sum[n][2] = fmaf(sum[n][2], weight[1], x.z * other_weight[1]);
      sum[n][3] = fmaf(sum[n][3], weight[1], x.w * other_weight[1]);
    }
  }
  const int32_t b = head / p.H, h = head - b * p.H, first = first_row + 16 * warp;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int32_t row = first + lane / 4 + 8 * r;
    const bool empty = total[r] == 0;  // no key above -inf
    if (row < p.Nq && lane % 4 == 0) {
      p.lse[int64_t{head} * p.Nq + row] = empty ? -INFINITY : maximum[r] + logf(total[r]);
    }
    factor[r] = empty ? 0.0f : value_unit / kProbabilityUnits / total[r];
  }
  write_rows<D>(p.output + (int64_t{b} * p.Nq * p.H + h) * D, int64_t{p.H} * D, first, p.Nq, sum, factor);
}

template <int D, int kRowWarps, int kGroups>
void launch_shape(Args args, int64_t heads, const Launch& on) {
  constexpr int kShared = sizeof(Shared<D, kRowWarps, kGroups>);
  args.row_blocks = (args.Nq + 16 * kRowWarps - 1) / (16 * kRowWarps);
  const int64_t blocks = heads * args.row_blocks;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  check(cudaFuncSetAttribute(coarse_forward_tensor<D, kRowWarps, kGroups>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kShared),
        "cudaFuncSetAttribute");
  coarse_forward_tensor<D, kRowWarps, kGroups>
      <<<static_cast<unsigned>(blocks), 32 * kRowWarps * kGroups, kShared, on.stream>>>(args);
  check_launch("coarse_forward_tensor");
}

template <int D>
void launch_for(const Args& args, int64_t heads, const Launch& on) {
  // Blocks of 64 rows read keys and values half as often as blocks of 32, which share out a small problem more evenly.
  const auto rounds = [&](int64_t rows) {
    return (heads * ((args.Nq + rows - 1) / rows) + on.sm_count - 1) / on.sm_count;
  };
  if (static_cast<double>(rounds(64)) * 64 <= static_cast<double>(rounds(32)) * 32 * 1.2) {
    launch_shape<D, 4, 2>(args, heads, on);
  } else {
    launch_shape<D, 2, 4>(args, heads, on);
  }
}

}  // namespace

bool tensor_serves(const CoarseForward& p, const Launch& on) {
  const int64_t pitch = 4 * p.D + 16, bytes = (32 + 8 * kTile) * pitch + 5 * 1024;  // of the larger shape
  return (p.D == 64 || p.D == 96 || p.D == 128) && p.Nq > 0 && p.Nk > 0 && bytes <= on.shared_memory;
}

void launch_tensor(const CoarseForward& p, const Launch& on) {
  Args args;
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.Nq = static_cast<int32_t>(p.Nq), args.Nk = static_cast<int32_t>(p.Nk);
  args.row_blocks = 0;
  args.scale = p.scale;
  args.from = split(p, on);
  args.output = p.output, args.lse = p.lse;
  const auto launch = p.D == 64 ? launch_for<64> : p.D == 96 ? launch_for<96> : launch_for<128>;
  launch(args, p.B * p.H, on);
}

}  // namespace vsa::cuda::coarse
