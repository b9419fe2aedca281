#include <algorithm>
#include <cfloat>

#include "cuda/check.h"
#include "cuda/coarse_tensor.cuh"

// One launch, two kinds of blocks, of 64 rows and four warps each: some have keys and walk the queries (dk, dv), the
// others have queries and walk the keys (dq). Both kinds recompute probabilities and their gradients; nothing is ever
// added up between blocks. A block has room for one tile of each of the two tensors that it walks; the next rows of one
// come while it is busy with the other.
namespace vsa::cuda::coarse {
namespace {

constexpr int kThreads = 128;
constexpr float kProbabilityUnits = 16384;      // a probability of 1 as an fp16 operand
constexpr float kGradientUnits = 1 / 65536.0f;  // below, scores' gradients are up to 2^31 times the units of their rows

struct Args {
  int32_t H, group, Nq, Nk;
  int32_t key_blocks, query_blocks;  // of a head
  int32_t blocks_of_keys;            // in all; they come first, as they take longer
  float scale;
  Split from;
  float* dq;  // [B, Nq, H, D]
  float* dk;  // [B, Nk, Hkv, D]
  float* dv;  // [B, Nk, Hkv, D]
};

template <int D>
struct Shared {
  alignas(16) unsigned char rows[kBackwardRows * kPitch<D>];        // q or k of the block
  alignas(16) unsigned char other_rows[kBackwardRows * kPitch<D>];  // doutput or v
  alignas(16) unsigned char tile[kTile * kPitch<D>];                // k or q that pass by
  alignas(16) unsigned char other_tile[kTile * kPitch<D>];          // v or doutput
  union {
    alignas(16) KeyRow key_rows[2][kTile];
    alignas(16) QueryRow query_rows[2][kTile];
  };
  float4 gradients[kTile / 8]
                  [kThreads];         // a thread's block of dP, then of dS: it waits here while others are worked on
  float2 row_factors[kBackwardRows];  // of the block's keys: of scores, and of the products of values
  float scratch[kThreads / 32];
  // What a block needs once a tile: here it costs no registers.
  const __half* passing;  // the tensors that pass by, and what is known of their rows
  const __half* other_passing;
  const void* passing_rows;
  float by_value_unit, by_key_unit, by_gradient_unit, by_both_units;
  float value_unit, key_unit, gradient_unit, both_units;
};

__device__ __forceinline__ void put(float4 (&to)[kTile / 8][kThreads], const Block& block) {
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
    to[n][threadIdx.x] = make_float4(block[n][0], block[n][1], block[n][2], block[n][3]);
  }
}

__device__ __forceinline__ void take(Block& block, const float4 (&from)[kTile / 8][kThreads]) {
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
    const float4 x = from[n][threadIdx.x];
    block[n][0] = x.x, block[n][1] = x.y, block[n][2] = x.z, block[n][3] = x.w;
  }
}

// exp(score - lse) of a score in units, and where its key is there.
__device__ __forceinline__ float probability(float units, float factor, float lse) {
  return expf(fmaf(units, factor, -lse));
}

template <int D>
__device__ __forceinline__ void dq_block(const Args& p, Shared<D>& shared, int32_t index) {
  const int32_t head = index / p.query_blocks, first_row = (index - head * p.query_blocks) * kBackwardRows;
  const int32_t key_head = head / p.group;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    shared.passing = p.from.k + int64_t{key_head} * p.Nk * (2 * D);
    shared.other_passing = p.from.v + int64_t{key_head} * p.Nk * (2 * D);
  }
  __syncthreads();
  const KeyRow* key_rows = p.from.key_rows + int64_t{key_head} * p.Nk;
  const QueryRow* query_rows = p.from.query_rows + int64_t{head} * p.Nq;
  const int32_t tiles = (p.Nk + kTile - 1) / kTile;

  const uint32_t q_at = ptx::shared_address(shared.rows), doutput_at = ptx::shared_address(shared.other_rows);
  const uint32_t k_at = ptx::shared_address(shared.tile), v_at = ptx::shared_address(shared.other_tile);
  const auto load_values = [&](int32_t tile, int parity) {
    copy_rows<D, kTile, kThreads>(v_at, shared.other_passing, tile * kTile, p.Nk, threadIdx.x);
    const int32_t row = tile * kTile + threadIdx.x;
    if (threadIdx.x < kTile) {
      ptx::cp_async_8(ptx::shared_address(&shared.key_rows[parity][threadIdx.x]), key_rows + min(row, p.Nk - 1),
                      row < p.Nk);
    }
    ptx::cp_async_commit();
  };
  const auto load_keys = [&](int32_t tile) {
    copy_rows<D, kTile, kThreads>(k_at, shared.passing, tile * kTile, p.Nk, threadIdx.x);
    ptx::cp_async_commit();
  };
  const auto meet = [&] {
    ptx::cp_async_wait<0>();
    __syncthreads();
  };

  const int64_t first_of_head = int64_t{head} * p.Nq * (2 * D);
  copy_rows<D, kBackwardRows, kThreads>(q_at, p.from.q + first_of_head, first_row, p.Nq, threadIdx.x);
  copy_rows<D, kBackwardRows, kThreads>(doutput_at, p.from.doutput + first_of_head, first_row, p.Nq, threadIdx.x);
  load_values(0, 0);
  float key_unit = 0, value_unit = 0;
  for (int32_t i = threadIdx.x; i < p.Nk; i += kThreads) {
    key_unit = fmaxf(key_unit, key_rows[i].unit), value_unit = fmaxf(value_unit, key_rows[i].vunit);
  }
  key_unit = block_max<kThreads>(key_unit, shared.scratch);
  value_unit = block_max<kThreads>(value_unit, shared.scratch);
  const float by_value_unit = 1 / value_unit;
  if (threadIdx.x == 0) {
    shared.value_unit = value_unit, shared.key_unit = key_unit;
    shared.by_value_unit = by_value_unit, shared.by_key_unit = kGradientUnits / key_unit;
  }
  float factor[2], lse[2], delta[2], dunit[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const QueryRow row = query_rows[min(first_row + 16 * warp + lane / 4 + 8 * r, p.Nq - 1)];
    factor[r] = row.unit * p.scale, lse[r] = row.lse, delta[r] = row.delta * by_value_unit, dunit[r] = row.dunit;
  }
  meet();
  load_keys(0);

  const uint32_t my_row = warp * 16 * kPitch<D> + left_lane<D>();
  float dq[D / 8][4] = {};
  int parity = 0;
#pragma unroll 1
  for (int32_t tile = 0; tile < tiles; ++tile, parity ^= 1) {
    Block dp, s;
    multiply_rows<D, 2>(dp, doutput_at + my_row, v_at + right_lane<D>());
    meet();  // this tile's keys are here, and all are done with its values
    if (tile + 1 < tiles) load_values(tile + 1, parity ^ 1);
    multiply_rows<D, 2>(s, q_at + my_row, k_at + right_lane<D>());
    const float by_value_unit = shared.by_value_unit, by_key_unit = shared.by_key_unit;
    const int32_t left = p.Nk - tile * kTile - lane % 4 * 2;  // columns that exist, from the lane's first on
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      const float4 column = *reinterpret_cast<const float4*>(&shared.key_rows[parity][8 * n + lane % 4 * 2]);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = e / 2;
        const float unit = e % 2 == 0 ? column.x : column.z, other_unit = e % 2 == 0 ? column.y : column.w;
        const float gradient = fmaf(dp[n][e], other_unit * by_value_unit, -delta[r]);
        const float weight = probability(s[n][e] * unit, factor[r], lse[r]);
        s[n][e] = 8 * n + e % 2 < left ? weight * gradient * (unit * by_key_unit) : 0.0f;
      }
    }
    add_block<D>(dq, SplitBlock(s), k_at + summed_lane<D>());
    meet();  // the next values are here, and all are done with the keys
    if (tile + 1 < tiles) load_keys(tile + 1);
  }
  const int32_t b = head / p.H, h = head - b * p.H;
  const float by_block = shared.value_unit / kGradientUnits * shared.key_unit;
  const float units[2] = {by_block * dunit[0] * p.scale, by_block * dunit[1] * p.scale};
  write_rows<D>(p.dq + (int64_t{b} * p.Nq * p.H + h) * D, int64_t{p.H} * D, first_row + 16 * warp, p.Nq, dq, units);
}

template <int D>
__device__ __forceinline__ void dk_dv_block(const Args& p, Shared<D>& shared, int32_t index) {
  const int32_t key_head = index / p.key_blocks, first_row = (index - key_head * p.key_blocks) * kBackwardRows;
  const int64_t first_query = int64_t{key_head} * p.group * p.Nq;  // of the heads that share the keys
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    shared.passing = p.from.q + first_query * (2 * D);
    shared.other_passing = p.from.doutput + first_query * (2 * D);
    shared.passing_rows = p.from.query_rows + first_query;
  }
  __syncthreads();
  const QueryRow* query_rows = p.from.query_rows + first_query;
  const KeyRow* key_rows = p.from.key_rows + int64_t{key_head} * p.Nk;
  const int32_t tiles = (p.Nq + kTile - 1) / kTile;

  const uint32_t k_at = ptx::shared_address(shared.rows), v_at = ptx::shared_address(shared.other_rows);
  const uint32_t q_at = ptx::shared_address(shared.tile), doutput_at = ptx::shared_address(shared.other_tile);
  // A step is a tile of queries of one head.
  const auto load_doutput = [&](int32_t step) {
    const int32_t g = step / tiles, tile = step - g * tiles;
    const int64_t first = int64_t{g} * p.Nq;
    copy_rows<D, kTile, kThreads>(doutput_at, shared.other_passing + first * (2 * D), tile * kTile, p.Nq, threadIdx.x);
    const int32_t row = tile * kTile + threadIdx.x;
    if (threadIdx.x < kTile) {
      ptx::cp_async_16(ptx::shared_address(&shared.query_rows[step % 2][threadIdx.x]),
                       static_cast<const QueryRow*>(shared.passing_rows) + first + min(row, p.Nq - 1), row < p.Nq);
    }
    ptx::cp_async_commit();
  };
  const auto load_queries = [&](int32_t step) {
    const int32_t g = step / tiles, tile = step - g * tiles;
    copy_rows<D, kTile, kThreads>(q_at, shared.passing + int64_t{g} * p.Nq * (2 * D), tile * kTile, p.Nq, threadIdx.x);
    ptx::cp_async_commit();
  };
  const auto meet = [&] {
    ptx::cp_async_wait<0>();
    __syncthreads();
  };

  const int64_t first_of_head = int64_t{key_head} * p.Nk * (2 * D);
  copy_rows<D, kBackwardRows, kThreads>(k_at, p.from.k + first_of_head, first_row, p.Nk, threadIdx.x);
  copy_rows<D, kBackwardRows, kThreads>(v_at, p.from.v + first_of_head, first_row, p.Nk, threadIdx.x);
  load_doutput(0);
  __syncwarp();
  float value_unit = 0, gradient_unit = 0, both_units = FLT_MIN;
  for (int32_t i = threadIdx.x; i < p.Nk; i += kThreads) value_unit = fmaxf(value_unit, key_rows[i].vunit);
  for (int32_t i = threadIdx.x; i < p.group * p.Nq; i += kThreads) {
    const QueryRow row = query_rows[i];
    gradient_unit = fmaxf(gradient_unit, row.dunit), both_units = fmaxf(both_units, row.unit * row.dunit);
  }
  value_unit = block_max<kThreads>(value_unit, shared.scratch);
  gradient_unit = block_max<kThreads>(gradient_unit, shared.scratch);
  both_units = block_max<kThreads>(both_units, shared.scratch);
  const float by_value_unit = 1 / value_unit;
  if (threadIdx.x == 0) {
    shared.value_unit = value_unit, shared.gradient_unit = gradient_unit, shared.both_units = both_units;
    shared.by_value_unit = by_value_unit, shared.by_gradient_unit = kProbabilityUnits / gradient_unit;
    shared.by_both_units = kGradientUnits / both_units;
  }
  if (threadIdx.x < kBackwardRows) {
    const KeyRow row = key_rows[min(first_row + static_cast<int32_t>(threadIdx.x), p.Nk - 1)];
    shared.row_factors[threadIdx.x] = make_float2(row.unit * p.scale, row.vunit * by_value_unit);
  }
  meet();
  load_queries(0);

  const uint32_t my_row = warp * 16 * kPitch<D> + left_lane<D>();
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  const int32_t steps = p.group * tiles;
#pragma unroll 1
  for (int32_t step = 0; step < steps; ++step) {
    Block block;
    multiply_rows<D, 2>(block, v_at + my_row, doutput_at + right_lane<D>());
    put(shared.gradients, block);
    meet();  // this tile's queries are here
    multiply_rows<D, 2>(block, k_at + my_row, q_at + right_lane<D>());
    const float by_value_unit = shared.by_value_unit, by_gradient_unit = shared.by_gradient_unit;
    const float by_both_units = shared.by_both_units;
    // Of a query that does not exist all is 0 but the probability, which is 1.
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      __syncwarp();  // or the compiler reads all of what follows at once, and runs out of registers
      float4& gradient = shared.gradients[n][threadIdx.x];
      float dp[4] = {gradient.x, gradient.y, gradient.z, gradient.w};
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const QueryRow column = shared.query_rows[step % 2][8 * n + lane % 4 * 2 + c];
        const float delta = column.delta * by_value_unit;
        const float probability_units = column.dunit * by_gradient_unit;
        const float gradient_units = column.unit * column.dunit * by_both_units;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int e = 2 * r + c;
          const float2 row = shared.row_factors[16 * warp + lane / 4 + 8 * r];
          const float weight = probability(block[n][e] * column.unit, row.x, column.lse);
          dp[e] = weight * fmaf(dp[e], row.y, -delta) * gradient_units;
          block[n][e] = weight * probability_units;
        }
      }
      gradient = make_float4(dp[0], dp[1], dp[2], dp[3]);
    }
    add_block<D>(dv, SplitBlock(block), doutput_at + summed_lane<D>());
    __syncthreads();  // all are done with doutput
    if (step + 1 < steps) load_doutput(step + 1);
    take(block, shared.gradients);
    add_block<D>(dk, SplitBlock(block), q_at + summed_lane<D>());
    meet();  // the next doutput is here, and all are done with the queries
    if (step + 1 < steps) load_queries(step + 1);
  }
  const int32_t Hkv = p.H / p.group, b = key_head / Hkv, h = key_head - b * Hkv;
  const int64_t to = (int64_t{b} * p.Nk * Hkv + h) * D, stride = int64_t{Hkv} * D;
  const float dk_units = shared.value_unit / kGradientUnits * shared.both_units * p.scale;
  const float dv_units = shared.gradient_unit / kProbabilityUnits;
  const float dk_factor[2] = {dk_units, dk_units}, dv_factor[2] = {dv_units, dv_units};
  write_rows<D>(p.dk + to, stride, first_row + 16 * warp, p.Nk, dk, dk_factor);
  write_rows<D>(p.dv + to, stride, first_row + 16 * warp, p.Nk, dv, dv_factor);
}

template <int D>
__global__ void __launch_bounds__(kThreads, 2) coarse_backward_tensor(const __grid_constant__ Args p) {
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<D>*>(memory);
  const auto index = static_cast<int32_t>(blockIdx.x);
  if (index < p.blocks_of_keys) {
    dk_dv_block<D>(p, shared, index);
  } else {
    dq_block<D>(p, shared, index - p.blocks_of_keys);
  }
}

template <int D>
void launch_for(const Args& args, int64_t blocks, const Launch& on) {
  constexpr int kShared = sizeof(Shared<D>);
  static_assert(kShared <= 113 * 1024, "two blocks must fit into an SM of 228 KB");
  check(cudaFuncSetAttribute(coarse_backward_tensor<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared),
        "cudaFuncSetAttribute");
  coarse_backward_tensor<D><<<static_cast<unsigned>(blocks), kThreads, kShared, on.stream>>>(args);
  check_launch("coarse_backward_tensor");
}

}  // namespace

bool tensor_serves(const CoarseBackward& p, const Launch& on) {
  const int64_t pitch = 4 * p.D + 16, bytes = 2 * (kBackwardRows + kTile) * pitch + 2 * 1024;
  // D = 128: sums of dk and dv, 128 registers, leave too few for the rest (4 bytes spilled).
  return (p.D == 64 || p.D == 96) && p.Nq > 0 && p.Nk > 0 && bytes <= on.shared_memory;
}

void launch_tensor(const CoarseBackward& p, const Launch& on) {
  const auto blocks_of = [](int64_t rows) { return (rows + kBackwardRows - 1) / kBackwardRows; };
  const int64_t key_blocks = p.B * p.Hkv * blocks_of(p.Nk), query_blocks = p.B * p.H * blocks_of(p.Nq);
  VSA_CHECK(key_blocks + query_blocks <= INT32_MAX, "too many tiles for a launch");
  Args args;
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.Nq = static_cast<int32_t>(p.Nq), args.Nk = static_cast<int32_t>(p.Nk);
  args.key_blocks = static_cast<int32_t>(blocks_of(p.Nk)), args.query_blocks = static_cast<int32_t>(blocks_of(p.Nq));
  args.blocks_of_keys = static_cast<int32_t>(key_blocks);
  args.scale = p.scale;
  args.from = split(p, on);
  args.dq = p.dq, args.dk = p.dk, args.dv = p.dv;
  const auto launch = p.D == 64 ? launch_for<64> : launch_for<96>;
  launch(args, key_blocks + query_blocks, on);
}

}  // namespace vsa::cuda::coarse
