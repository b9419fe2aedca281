#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine.h"
#include "cuda/fine_f32.cuh"
#include "cuda/fine_f32_forward.cuh"
#include "cuda/kernel_attributes.h"

// Attention forward in fp32: a block has the 64 rows of a query tile, a warp 16 of them, and walks the tile's list with
// an online softmax (flash attention). A warp's scores cover all 64 keys of a tile, so the statistics of its rows
// never leave it.
namespace vsa::cuda {
namespace f32 {
namespace {

constexpr int kHalfKeys = kTileVolume / 2;
constexpr int kProbabilityStride = kHalfKeys + 8;  // 8 more: the rows of a store lie in different groups of banks

struct ForwardArgs {
  TileLayout queries, keys;
  TileLists lists;
  int32_t H, group;  // group: query heads that share a key head
  float scale;
  const float* q;
  const float* k;
  const float* v;
  float* output;
  float* lse;
  int32_t parts;
  float* partial;      // [items, parts, 64, D], sums not yet normalised; null if parts is 1
  float2* statistics;  // [items, parts, 64]: maximum, total
};

// One query tile of one head.
struct Item {
  int32_t b, h, tile;

  Item() = default;
  __device__ Item(int32_t index, int32_t H, int32_t tiles) {
    const int32_t head = index / tiles;
    tile = index - head * tiles;
    b = head / H;
    h = head - b * H;
  }
};

template <int D>
struct ForwardShared {
  alignas(16) float q[kTileVolume * kResidentStride<D>];
  alignas(16) float stages[kStages][kStageFloats];
  alignas(16) float probabilities[kTileVolume * kProbabilityStride];  // of half a key tile; 16 rows a warp
  TileTable tables[2];
  // What the loop needs rarely, or not at all: here it costs no registers.
  Item item;
  const float* k;
  const float* v;
};

// The softmax of a thread's rows so far. `total` is over the thread's own columns until the end.
struct RowStatistics {
  float maximum[4], total[4];
};

// Scores become probabilities, relative to the new maximum. Bit j of `valid` says that column j is a token.
template <int columns>
__device__ __forceinline__ void softmax_step(float (&s)[4][8], float scale, uint32_t valid, RowStatistics& statistics,
                                             float (&sum)[4][columns]) {
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    float maximum = -INFINITY;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      if (valid >> j & 1) maximum = fmaxf(maximum, s[r][j] * scale);  // passes over NaN, which reaches the total below
    }
    maximum = fmaxf(statistics.maximum[r], row_max(maximum));
    const float reference = maximum == -INFINITY ? 0.0f : maximum;  // -inf - -inf would be NaN
    const float correction = expf(statistics.maximum[r] - reference);
    float total = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      s[r][j] = valid >> j & 1 ? expf(fmaf(s[r][j], scale, -reference)) : 0.0f;
      total += s[r][j];
    }
    statistics.maximum[r] = maximum;
    statistics.total[r] = fmaf(statistics.total[r], correction, total);
#pragma unroll
    for (int c = 0; c < columns; ++c) sum[r][c] *= correction;
  }
}

template <int D>
__device__ __forceinline__ void write_partial(const ForwardArgs& p, int first_slot, int first_column,
                                              const RowStatistics& statistics, const float (&sum)[4][D / 8]) {
  const int64_t rows = int64_t{blockIdx.x} * kTileVolume;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int64_t row = rows + first_slot + 4 * r;
    store_row(p.partial + row * D, first_column, sum[r]);
    if (first_column == 0) p.statistics[row] = make_float2(statistics.maximum[r], statistics.total[r]);
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 3) fine_forward_f32(const __grid_constant__ ForwardArgs p) {
  constexpr int kDepthChunks = D / kDepth, kChunks = kDepthChunks + kRowChunks;
  extern __shared__ __align__(16) unsigned char memory[];
  auto& shared = *reinterpret_cast<ForwardShared<D>*>(memory);

  const int part = blockIdx.x % p.parts;
  const Item item(blockIdx.x / p.parts, p.H, p.queries.tiles);
  ListWalk walk(p.lists, (int64_t{item.b} * p.H + item.h) * p.lists.rows + item.tile, 1, part, p.parts);
  const int32_t Hkv = p.H / p.group;
  if (threadIdx.x == 0) {
    shared.item = item;
    shared.k = HeadRows(p.k, item.b, p.keys.rows, Hkv, item.h / p.group, D).first;
    shared.v = HeadRows(p.v, item.b, p.keys.rows, Hkv, item.h / p.group, D).first;
  }

  const Lane lane;
  const int warp_row = threadIdx.x / 32 * 16, first_row = warp_row + lane.row;
  const float* my_q = shared.q + first_row * kResidentStride<D>;
  float* my_probabilities = shared.probabilities + first_row * kProbabilityStride;
  float sum[4][D / 8] = {};
  RowStatistics statistics;
#pragma unroll
  for (int r = 0; r < 4; ++r) statistics.maximum[r] = -INFINITY, statistics.total[r] = 0;

  const int32_t kv_stride = Hkv * D;
  const auto load = [&](int chunk, const TileTable& table, int stage) {
    if (chunk < kDepthChunks) {
      load_depth_chunk(shared.stages[stage], {shared.k, kv_stride}, table, chunk * kDepth);
    } else {
      load_row_chunk<D>(shared.stages[stage], {shared.v, kv_stride}, table, (chunk - kDepthChunks) * kChunkRows);
    }
  };
  const auto next_stage = [](int stage) { return stage == kStages - 1 ? 0 : stage + 1; };

  Step current = walk.take(), upcoming = walk.take();
  if (current.tile >= 0) {
    shared.tables[0].fill(p.keys, current.tile);
    const HeadRows q(p.q, item.b, p.queries.rows, p.H, item.h, D);
    load_residents<D, kTileVolume>(shared.q, q, p.queries.place(item.tile), 0);
  }
  __syncthreads();
  if (current.tile >= 0) {
    load(0, shared.tables[0], 0);
    ptx::cp_async_commit();
    load(1, shared.tables[0], 1);
    ptx::cp_async_commit();
  }
  int stage = 0;
  for (int parity = 0; current.tile >= 0; parity ^= 1) {
    const Step ahead = walk.take();  // used a tile later: the loop does not wait for the index
    // Waits for chunk `chunk`, and for everyone to be done with the one before, whose stage is filled again.
    const auto enter = [&](int chunk) {
      ptx::cp_async_wait<1>();
      __syncthreads();
      if (chunk == 0 && upcoming.tile >= 0) shared.tables[parity ^ 1].fill(p.keys, upcoming.tile);
      const int refilled = next_stage(next_stage(stage));
      if (chunk + 2 < kChunks) {
        load(chunk + 2, shared.tables[parity], refilled);
      } else if (upcoming.tile >= 0) {
        load(chunk + 2 - kChunks, shared.tables[parity ^ 1], refilled);
      }
      ptx::cp_async_commit();
    };

    float s[4][8] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kDepthChunks; ++chunk) {
      enter(chunk);
      multiply_depth<8, kResidentStride<D>>(s, my_q + chunk * kDepth,
                                            shared.stages[stage] + lane.column * kDepthStride);
      stage = next_stage(stage);
    }
    // Bit 8 j is the thread's column j.
    const TileTable& table = shared.tables[parity];
    uint32_t valid = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) valid |= (table.valid[j / 4] >> (8 * (j % 4) + lane.column) & 1) << j;
    softmax_step(s, p.scale, valid, statistics, sum);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      __syncwarp();  // the warp is done with its rows of the other half
#pragma unroll
      for (int r = 0; r < 4; ++r) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          my_probabilities[4 * r * kProbabilityStride + 8 * j + lane.column] = s[r][4 * half + j];
        }
      }
#pragma unroll 1
      for (int chunk = 0; chunk < kRowChunks / 2; ++chunk) {
        enter(kDepthChunks + half * (kRowChunks / 2) + chunk);
        multiply_rows<D / 8, kProbabilityStride, D>(sum, my_probabilities + chunk * kChunkRows,
                                                    shared.stages[stage] + lane.column * kVectorWidth<D / 8>);
        stage = next_stage(stage);
      }
    }
    current = upcoming, upcoming = ahead;
  }

#pragma unroll
  for (int r = 0; r < 4; ++r) statistics.total[r] = row_sum(statistics.total[r]);
  const int first_column = lane.column * kVectorWidth<D / 8>;
  if (p.parts > 1) {
    write_partial<D>(p, first_row, first_column, statistics, sum);
    return;
  }
  const Item at = shared.item;
  const TilePlace place = p.queries.place(at.tile);
  const int64_t lse_row = (int64_t{at.b} * p.H + at.h) * p.queries.rows;
  const HeadRows output(p.output, at.b, p.queries.rows, p.H, at.h, D);
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const int slot = first_row + 4 * r;
    const bool valid = place.valid(slot), empty = !valid || statistics.total[r] == 0;  // no key, or none above -inf
    const float factor = 1.0f / statistics.total[r];
#pragma unroll
    for (int c = 0; c < D / 8; ++c) sum[r][c] = empty ? 0.0f : sum[r][c] * factor;
    if (!valid && !p.queries.tiled) continue;
    const int32_t row = place.row(slot);
    store_row(const_cast<float*>(output.at(row)), first_column, sum[r]);
    if (lane.column == 0) {
      p.lse[lse_row + row] = empty ? -INFINITY : statistics.maximum[r] + logf(statistics.total[r]);
    }
  }
}

// The parts of every query tile's sum, in order. A thread has four columns of a row.
template <int D>
__global__ void __launch_bounds__(256) fine_forward_f32_join(const __grid_constant__ ForwardArgs p, int64_t rows) {
  constexpr int kVectors = D / 4;
  const int64_t unit = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  const int64_t slot_row = unit / kVectors;
  if (slot_row >= rows) return;
  const int column = static_cast<int>(unit - slot_row * kVectors) * 4;
  const int32_t index = static_cast<int32_t>(slot_row / kTileVolume);
  const Item item(index, p.H, p.queries.tiles);
  const int slot = static_cast<int>(slot_row % kTileVolume);
  const TilePlace place = p.queries.place(item.tile);
  const bool valid = place.valid(slot);
  if (!valid && !p.queries.tiled) return;

  const int64_t first = int64_t{index} * p.parts * kTileVolume + slot;  // of part 0
  float maximum = -INFINITY;
  for (int part = 0; part < p.parts; ++part) maximum = fmaxf(maximum, p.statistics[first + part * kTileVolume].x);
  const float reference = maximum == -INFINITY ? 0.0f : maximum;
  float total = 0, sum[4] = {};
  for (int part = 0; part < p.parts; ++part) {
    const int64_t row = first + part * kTileVolume;
    const float2 statistics = p.statistics[row];
    const float weight = expf(statistics.x - reference);
    float x[4];
    load_vector<4>(x, p.partial + row * D + column);
    total = fmaf(statistics.y, weight, total);
#pragma unroll
    for (int e = 0; e < 4; ++e) sum[e] = fmaf(x[e], weight, sum[e]);
  }
  const bool empty = !valid || total == 0;
  const float factor = 1.0f / total;
#pragma unroll
  for (int e = 0; e < 4; ++e) sum[e] = empty ? 0.0f : sum[e] * factor;
  const int32_t row = place.row(slot);
  const HeadRows output(p.output, item.b, p.queries.rows, p.H, item.h, D);
  store_vector<4>(const_cast<float*>(output.at(row)) + column, sum);
  if (column == 0) {
    p.lse[(int64_t{item.b} * p.H + item.h) * p.queries.rows + row] = empty ? -INFINITY : maximum + logf(total);
  }
}

template <int D>
void launch_for(const ForwardArgs& args, int64_t items, const Launch& launch) {
  constexpr int kShared = sizeof(ForwardShared<D>);
  static_assert(kShared <= 75 * 1024 - 256, "three blocks must fit into an SM of 228 KB, one into any");
  allow_shared_memory(fine_forward_f32<D>, kShared, "fine_forward_f32");
  const int64_t blocks = items * args.parts;
  VSA_CHECK(blocks <= INT32_MAX, "too many query tiles for a launch");
  launch_kernel(fine_forward_f32<D>, "fine_forward_f32", launch, static_cast<unsigned>(blocks), kThreads, kShared,
                args);
  if (args.parts == 1) return;
  const int64_t rows = items * kTileVolume, units = rows * (D / 4);
  launch_kernel(fine_forward_f32_join<D>, "fine_forward_f32_join", launch, static_cast<unsigned>((units + 255) / 256),
                256, 0, args, rows);
}

}  // namespace

int forward_parts(const FineForward& p, const Launch& launch) {
  const int64_t rows = p.B * p.H * p.lists.rows;
  // From some blocks an SM on they even out by themselves, and the sums of the parts would take much memory.
  if (rows == 0 || rows >= 4 * int64_t{launch.sm_count}) return 1;
  const double length = p.lists.offsets == nullptr ? static_cast<double>(p.lists.columns)
                                                   : static_cast<double>(p.lists.count) / static_cast<double>(rows);
  // The time of the busiest SM, in key tiles: its blocks' tiles, half a tile for each block's beginning and end, and
  // what one or two blocks alone leave unused of an SM.
  const auto time = [&](int parts) {
    const int64_t blocks = (rows * parts + launch.sm_count - 1) / launch.sm_count;
    const double use = blocks == 1 ? 0.55 : blocks == 2 ? 0.85 : 1;
    const double join = parts == 1 ? 0 : 1;
    return static_cast<double>(blocks) * (std::ceil(length / parts) + 0.5) / use + join;
  };
  int best = 1;
  for (int parts = 2; parts <= 8 && parts <= length; ++parts) {
    if (time(parts) < 0.95 * time(best)) best = parts;
  }
  return best;
}

void launch_forward(const FineForward& p, const Launch& launch, int parts) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.lists.rows == p.q_grid.total_tiles() && p.lists.columns == p.kv_grid.total_tiles(),
            "lists must fit the grids");
  const int64_t items = p.B * p.H * p.lists.rows;
  if (items == 0) return;
  ForwardArgs args;
  args.queries = TileLayout(p.q_grid, p.order), args.keys = TileLayout(p.kv_grid, p.order);
  args.lists = p.lists;
  args.H = static_cast<int32_t>(p.H), args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.scale = p.scale;
  args.q = static_cast<const float*>(p.q), args.k = static_cast<const float*>(p.k);
  args.v = static_cast<const float*>(p.v);
  args.output = static_cast<float*>(p.output), args.lse = p.lse;
  args.parts = parts, args.partial = nullptr, args.statistics = nullptr;
  if (parts > 1) {
    args.partial = launch.scratch_of<float>(items * parts * kTileVolume * p.D);
    args.statistics = launch.scratch_of<float2>(items * parts * kTileVolume);
  }
  switch (p.D) {
    case 64:
      return launch_for<64>(args, items, launch);
    case 96:
      return launch_for<96>(args, items, launch);
    case 128:
      return launch_for<128>(args, items, launch);
    default:
      VSA_CHECK(false, "D must be 64, 96 or 128");
  }
}

}  // namespace f32

void launch_fine_forward_f32(const FineForward& p, const Launch& launch) {
  f32::launch_forward(p, launch, f32::forward_parts(p, launch));
}

}  // namespace vsa::cuda
