#pragma once

#include <cstdint>

#include "cuda/sm90/fine_backward_stream.cuh"
#include "cuda/sm90/ptx/cluster.h"

// What the pre-pass makes of the lists: the order of items, parts of long lists, unions of neighbours' lists.
namespace vsa::cuda::sm90::fine_backward {

inline constexpr int kPrepareThreads = 256;
inline constexpr int kPlanBlocks = 8;  // make a plan together: a cluster
// By how many lengths of its list an item begins before its head's turn.
inline constexpr float kEarly = 1.25f;

__device__ __forceinline__ int32_t sum_before(int32_t value) {  // over the lanes below; the warp
  int32_t sum = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int32_t other = __shfl_up_sync(~0u, sum, distance);
    if (threadIdx.x % 32 >= distance) sum += other;
  }
  return sum - value;
}

// The table of a pass's items, by one cluster. An item's place is head * W - kEarly * length, W being the time that a
// head takes: heads follow one another, which keeps their tensors in L2, but long lists start so early that the last
// head's end in time. (With 2, as in the portable kernels, work ends no sooner, and more heads are under way than L2
// holds: simulated, NOTES.md.) A counting sort; items of one bin come in any order: that moves no bit of the results.
// Where lists may be split, those longer than 1.25 times a worker's share of all work become equal parts. So there are
// at most 1.8 parts a worker: a list of 1.25 shares or more has at most its shares + 1 parts, 1.8 times its shares.
__device__ __forceinline__ void make_plan(const Walk& walk, const Args& p, int32_t batch_heads, int32_t heads,
                                          bool is_dq) {
  constexpr int kBins = 1024, kWarps = kPrepareThreads / 32, kThreads = kPlanBlocks * kPrepareThreads;
  static_assert(kBins == 4 * kPrepareThreads, "a thread has four bins");
  // What this block counts; then where its next item of a bin goes, its next part, its next split.
  __shared__ int4 bins[kBins / 4];
  __shared__ int32_t parts_and_splits[2], warp_totals[kWarps];
  const int32_t rank = ptx::cluster_rank();
  const Plan& plan = walk.plan;
  const int32_t candidates = batch_heads * plan.groups, most_items = candidates + plan.max_parts;
  const int32_t list_rows = batch_heads * walk.heads_per_item * walk.rows;
  const float total = walk.offsets == nullptr ? static_cast<float>(list_rows) * walk.columns
                                              : static_cast<float>(walk.offsets[list_rows] - walk.offsets[0]);
  const float share = total / plan.workers, head_time = share / batch_heads;
  const int32_t part_length = max(kShortestPart, static_cast<int32_t>(share) + 1);
  const float longest = kEarly * walk.heads_per_item * walk.columns * plan.group_tiles;
  const float bins_a_unit = kBins / (batch_heads * head_time + longest + 1.0f);

  // Calls f(head of batch, group, parts, length of its lists, bin) for this block's share of all groups.
  const auto for_each = [&](const auto& f) {
    for (int32_t i = rank * kPrepareThreads + threadIdx.x; i < candidates; i += kThreads) {
      const int32_t head = i / plan.groups, group = i - head * plan.groups, tile = group * plan.group_tiles;
      const int32_t end = min(tile + plan.group_tiles, walk.rows);
      int32_t length = (end - tile) * walk.columns * walk.heads_per_item;
      if (walk.offsets != nullptr) {
        length = 0;
        for (int32_t g = 0; g < walk.heads_per_item; ++g) {
          const int32_t row = walk.list_row(head, g, 0);
          length += walk.offsets[row + end] - walk.offsets[row + tile];
        }
      }
      const bool whole = plan.max_parts == 0 || length <= part_length + part_length / 4;
      const int32_t parts = whole ? 1 : (length + part_length - 1) / part_length;
      const float place = head * head_time - kEarly * ((length + parts - 1) / parts) + longest;
      f(head, group, parts, length, max(0, min(kBins - 1, static_cast<int32_t>(place * bins_a_unit))));
    }
  };
  int32_t* const counts = &bins[0].x;

  bins[threadIdx.x] = {};
  if (threadIdx.x < 2) parts_and_splits[threadIdx.x] = 0;
  __syncthreads();
  for_each([&](int32_t, int32_t, int32_t parts, int32_t, int32_t bin) {
    atomicAdd(&counts[bin], parts);
    if (parts > 1) atomicAdd(&parts_and_splits[0], parts), atomicAdd(&parts_and_splits[1], 1);
  });
  ptx::cluster_sync();
  int4 all = {}, of_lower = {};  // of all blocks, and of those of lower rank
  int32_t lower = 0, splits = 0;
#pragma unroll
  for (int r = 0; r < kPlanBlocks; ++r) {
    const int4 x = ptx::read_in_cluster(bins[threadIdx.x], r);
    all.x += x.x, all.y += x.y, all.z += x.z, all.w += x.w;
    if (r < rank) of_lower.x += x.x, of_lower.y += x.y, of_lower.z += x.z, of_lower.w += x.w;
    if (threadIdx.x < 2) {
      const int32_t used = ptx::read_in_cluster(parts_and_splits[threadIdx.x], r);
      splits += used;
      if (r < rank) lower += used;
    }
  }
  const int32_t own = all.x + all.y + all.z + all.w, in_warp = sum_before(own);
  if (threadIdx.x % 32 == 31) warp_totals[threadIdx.x / 32] = in_warp + own;
  ptx::cluster_sync();  // all have read what is overwritten now
  int32_t before = in_warp;
#pragma unroll
  for (int w = 0; w < kWarps - 1; ++w) before += w < threadIdx.x / 32 ? warp_totals[w] : 0;
  bins[threadIdx.x] = {before + of_lower.x, before + all.x + of_lower.y, before + all.x + all.y + of_lower.z,
                       before + all.x + all.y + all.z + of_lower.w};
  if (threadIdx.x < 2) parts_and_splits[threadIdx.x] = lower;
  if (rank == 0 && threadIdx.x == kPrepareThreads - 1) *plan.item_count = before + own, *plan.next = 0;
  if (rank == 0 && threadIdx.x == 1) *plan.split_count = splits;
  __syncthreads();

  // Minima keep lists that changed meanwhile from harming others.
  const auto put = [&](int32_t bin, const Item& item) {
    plan.items[min(atomicAdd(&counts[bin], 1), most_items - 1)] = item;
  };
  for_each([&](int32_t head_of_batch, int32_t group, int32_t parts, int32_t length, int32_t bin) {
    Item item;
    item.head_of_batch = head_of_batch, item.group = group;
    item.b = item.head_of_batch / heads, item.head = item.head_of_batch - item.b * heads;
    item.list_head = is_dq ? item.head / p.group : item.head * p.group;
    item.begin = 0, item.end = INT32_MAX, item.part = -1;
    if (parts == 1) return put(bin, item);
    const int32_t first = min(atomicAdd(&parts_and_splits[0], parts), plan.max_parts - parts);
    Split& split = plan.splits[min(atomicAdd(&parts_and_splits[1], 1), plan.max_parts / 2 - 1)];
    split = {item.b, item.head, item.group, first, parts, {}};
    for (int32_t i = 0; i < parts; ++i) {
      item.begin = static_cast<int32_t>(static_cast<int64_t>(length) * i / parts);
      item.end = static_cast<int32_t>(static_cast<int64_t>(length) * (i + 1) / parts);
      item.part = first + i;
      put(bin, item);
    }
  });
}

// The places of all tiles, by the same cluster.
__device__ __forceinline__ void make_sources(const TileLayout& layout, const TileClasses& classes,
                                             TileSource* sources) {
  if (sources == nullptr) return;
  const auto first = static_cast<int32_t>(blockIdx.x % kPlanBlocks * kPrepareThreads + threadIdx.x);
  for (int32_t tile = first; tile < layout.tiles; tile += kPlanBlocks * kPrepareThreads) {
    const int32_t tile_class = classes.of(tile), i = tile - layout.prefix_tiles;
    if (layout.tiled) {
      sources[tile] = {0, 0, 0, tile_class | tile_class << 8};
    } else if (i < 0) {
      sources[tile] = {tile * kTileVolume, 0, 0, 1 | tile_class << 8};
    } else {
      const int32_t row = i / layout.Nx, slab = row / layout.Ny;
      sources[tile] = {(i - row * layout.Nx) << layout.log_x, (row - slab * layout.Ny) << layout.log_y,
                       slab << layout.log_t, tile_class << 8};
    }
  }
}

// The union of the lists of two neighbouring query tiles, by one warp, 1024 key tiles at a time as bits, a word a lane:
// first the tiles that both have, then the others' by turns, the rest of the longer last. So a consumer finds its next
// tile within two slots, which keeps the ring from filling up while it holds one. Entry: tile << 2 | who has it.
__device__ __forceinline__ void merge_lists(const Walk& walk, int32_t head, int32_t group, uint32_t (&words)[2][32]) {
  const Plan& plan = walk.plan;
  const int lane = threadIdx.x % 32;
  const int32_t first_tile = group * 2, members = min(2, walk.rows - first_tile);
  const int32_t* offsets = walk.offsets + static_cast<int64_t>(head) * walk.rows + first_tile;
  int32_t* merged = plan.merged + offsets[0];
  // Entries of both, of the first alone, of the second alone: so far, and in all, which the first round counts.
  int32_t counts[3] = {0, 0, 0}, totals[3] = {0, 0, 0};
  for (int round = 0; round < 2; ++round) {
    int32_t at[2] = {0, 0};
    counts[0] = counts[1] = counts[2] = 0;
    for (int32_t first = 0; first < walk.columns; first += 1024) {
      words[0][lane] = words[1][lane] = 0;
      __syncwarp();
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        if (m >= members) continue;
        const int32_t begin = offsets[m], length = offsets[m + 1] - begin;
        while (at[m] < length) {
          const int32_t position = at[m] + lane;
          const int32_t column = position < length ? walk.indices[begin + position] - first : 1024;
          if (column < 1024) atomicOr(&words[m][column / 32], 1u << column % 32);
          const int here = __popc(__ballot_sync(~0u, column < 1024));
          at[m] += here;
          if (here < 32) break;
        }
      }
      __syncwarp();
      const uint32_t a = words[0][lane], b = words[1][lane];
      __syncwarp();
      const uint32_t sets[3] = {a & b, a & ~b, b & ~a};
#pragma unroll
      for (int kind = 0; kind < 3; ++kind) {
        const int32_t here = __popc(sets[kind]);
        int32_t rank = counts[kind] + sum_before(here);
        counts[kind] = __shfl_sync(~0u, rank + here, 31);
        if (round == 0) continue;
        const int32_t turns = min(totals[1], totals[2]), who = kind == 0 ? 3 : kind;
        for (uint32_t rest = sets[kind]; rest != 0; rest &= rest - 1, ++rank) {
          int32_t place = rank;
          if (kind > 0) place = totals[0] + (rank < turns ? 2 * rank + kind - 1 : turns + rank);
          merged[place] = (first + lane * 32 + __ffs(rest) - 1) << 2 | who;
        }
      }
    }
    if (round == 0) totals[0] = counts[0], totals[1] = counts[1], totals[2] = counts[2];
  }
  // The rest of the room: copying warps read 32 entries at a time, of which they take those that there are.
  const int32_t count = totals[0] + totals[1] + totals[2];
  for (int32_t i = count + lane; i < offsets[members] - offsets[0]; i += 32) merged[i] = 0;
  if (lane == 0) plan.merged_counts[head * plan.groups + group] = count;
}

}  // namespace vsa::cuda::sm90::fine_backward
