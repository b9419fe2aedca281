#pragma once

#include <cstdint>

#include "cuda/sm90/fine_backward_stream.cuh"

// What the pre-pass makes of the lists: the order of items, parts of long lists, unions of neighbours' lists.
namespace vsa::cuda::sm90::fine_backward {

inline constexpr int kPrepareThreads = 256;
inline constexpr int kItemsInFlight = 8;  // of a thread that makes a plan: it is alone, and waits for offsets
// By how many lengths of its list an item begins before its head's turn.
inline constexpr float kEarly = 1.25f;

// The table of a pass's items, by one block. An item's place is head * W - kEarly * length, W being the time that a
// head takes: heads follow one another, which keeps their tensors in L2, but long lists start so early that the last
// head's end in time. (With 2, as in the portable kernels, work ends no sooner, and more heads are under way than L2
// holds: simulated, NOTES.md.) A counting sort; items of one bin come in any order: that moves no bit of the results.
// Where lists may be split, those longer than 1.25 times a worker's share of all work become equal parts. So there are
// at most 1.8 parts a worker: a list of 1.25 shares or more has at most its shares + 1 parts, 1.8 times its shares.
__device__ __forceinline__ void make_plan(const Walk& walk, const Args& p, int32_t batch_heads, int32_t heads,
                                          bool is_dq) {
  constexpr int kBins = 1024, kPerThread = kBins / kPrepareThreads;
  __shared__ int32_t bins[kBins], totals[kPrepareThreads], used_parts, used_splits;
  const Plan& plan = walk.plan;
  const int32_t candidates = batch_heads * plan.groups;
  const int32_t list_rows = batch_heads * walk.heads_per_item * walk.rows;
  const float total = walk.offsets == nullptr ? static_cast<float>(list_rows) * walk.columns
                                              : static_cast<float>(walk.offsets[list_rows] - walk.offsets[0]);
  const float share = total / plan.workers, head_time = share / batch_heads;
  const int32_t part_length = max(kShortestPart, static_cast<int32_t>(share) + 1);
  const float longest = kEarly * walk.heads_per_item * walk.columns * plan.group_tiles;
  const float bins_a_unit = kBins / (batch_heads * head_time + longest + 1.0f);

  // Calls f(head of batch, group, length of its lists) for all groups.
  const auto for_each = [&](const auto& f) {
    for (int32_t first = threadIdx.x; first < candidates; first += kItemsInFlight * kPrepareThreads) {
      int32_t lengths[kItemsInFlight] = {};
      for (int32_t g = 0; g < walk.heads_per_item; ++g) {
#pragma unroll
        for (int i = 0; i < kItemsInFlight; ++i) {
          const int32_t candidate = min(first + i * kPrepareThreads, candidates - 1), head = candidate / plan.groups;
          const int32_t tile = (candidate - head * plan.groups) * plan.group_tiles;
          const int32_t end = min(tile + plan.group_tiles, walk.rows), row = walk.list_row(head, g, 0);
          lengths[i] += walk.offsets == nullptr ? (end - tile) * walk.columns
                                                : walk.offsets[row + end] - walk.offsets[row + tile];
        }
      }
#pragma unroll
      for (int i = 0; i < kItemsInFlight; ++i) {
        const int32_t candidate = first + i * kPrepareThreads, head = candidate / plan.groups;
        if (candidate < candidates) f(head, candidate - head * plan.groups, lengths[i]);
      }
    }
  };
  const auto parts_of = [&](int32_t length) {
    return plan.max_parts == 0 || length <= part_length + part_length / 4 ? 1
                                                                          : (length + part_length - 1) / part_length;
  };
  const auto bin_of = [&](int32_t head_of_batch, int32_t length) {
    const float place = head_of_batch * head_time - kEarly * length + longest;
    return max(0, min(kBins - 1, static_cast<int32_t>(place * bins_a_unit)));
  };

  for (int i = threadIdx.x; i < kBins; i += kPrepareThreads) bins[i] = 0;
  if (threadIdx.x == 0) used_parts = used_splits = 0;
  __syncthreads();
  for_each([&](int32_t head_of_batch, int32_t, int32_t length) {
    const int32_t parts = parts_of(length);
    atomicAdd(&bins[bin_of(head_of_batch, (length + parts - 1) / parts)], parts);
  });
  __syncthreads();
  int32_t own = 0;
  for (int i = 0; i < kPerThread; ++i) own += bins[threadIdx.x * kPerThread + i];
  totals[threadIdx.x] = own;
  __syncthreads();
  int32_t before = 0;
  for (int i = 0; i < threadIdx.x; ++i) before += totals[i];
  for (int i = 0; i < kPerThread; ++i) {
    int32_t& bin = bins[threadIdx.x * kPerThread + i];
    const int32_t count = bin;
    bin = before, before += count;
  }
  if (threadIdx.x == kPrepareThreads - 1) *plan.item_count = before, *plan.next = 0;
  __syncthreads();
  for_each([&](int32_t head_of_batch, int32_t group, int32_t length) {
    Item item;
    item.head_of_batch = head_of_batch, item.group = group;
    item.b = item.head_of_batch / heads, item.head = item.head_of_batch - item.b * heads;
    item.list_head = is_dq ? item.head / p.group : item.head * p.group;
    item.begin = 0, item.end = INT32_MAX, item.part = -1;
    const int32_t parts = parts_of(length);
    int32_t* bin = &bins[bin_of(item.head_of_batch, (length + parts - 1) / parts)];
    if (parts == 1) {
      plan.items[atomicAdd(bin, 1)] = item;
      return;
    }
    // Within max_parts by the reckoning above; the minimum keeps lists that changed meanwhile from harming others.
    const int32_t first = min(atomicAdd(&used_parts, parts), plan.max_parts - parts);
    Split& split = plan.splits[min(atomicAdd(&used_splits, 1), plan.max_parts / 2 - 1)];
    split = {item.b, item.head, item.group, first, parts, {}};
    for (int32_t i = 0; i < parts; ++i) {
      item.begin = static_cast<int32_t>(static_cast<int64_t>(length) * i / parts);
      item.end = static_cast<int32_t>(static_cast<int64_t>(length) * (i + 1) / parts);
      item.part = first + i;
      plan.items[atomicAdd(bin, 1)] = item;
    }
  });
  __syncthreads();
  if (threadIdx.x == 0) *plan.split_count = used_splits;
}

// The places of all tiles, by the same block.
__device__ __forceinline__ void make_sources(const TileLayout& layout, const TileClasses& classes,
                                             TileSource* sources) {
  if (sources == nullptr) return;
  for (int32_t tile = threadIdx.x; tile < layout.tiles; tile += kPrepareThreads) {
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

__device__ __forceinline__ int32_t sum_before(int32_t value) {  // over the lanes below; the warp
  int32_t sum = value;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int32_t other = __shfl_up_sync(~0u, sum, distance);
    if (threadIdx.x % 32 >= distance) sum += other;
  }
  return sum - value;
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
