#pragma once

#include <cstdint>

#include "cuda/ptx/dependent_launch.h"
#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

struct MergeArgs {
  const int32_t* offsets;  // CSR over (b, h, query tile)
  const int32_t* indices;
  TileClasses classes;  // of key tiles
  int32_t q_tiles, kv_tiles, words;
  int32_t groups_a_head, groups, merge_blocks;
  void* lists;           // PairLists or TripleLists [groups]
  int32_t* entries;      // at most as many as indices
  Schedule* schedule;    // 0, which fine_forward restores
  int32_t limit;         // a group of which a list is longer than this is taken first
  int32_t* long_groups;  // [groups]
  // Clean copies of the partial tiles of v: blocks from merge_blocks on, one for each (batch, key tile).
  const uint4* v;
  uint4* v_clean;
  int32_t vectors;  // 16-byte vectors in a row of v
};

inline constexpr int kMergeWarps = 4;

// The lists of a group's query tiles as rows of bits in shared memory (order-free, so deterministic), by a warp.
__device__ __forceinline__ void read_rows(const MergeArgs& p, int64_t row, int members, int rows_of_group,
                                          uint32_t* rows, int lane) {
  for (int32_t i = lane; i < rows_of_group * p.words; i += 32) rows[i] = 0;
  __syncwarp();
  for (int m = 0; m < members; ++m) {
    for (int32_t i = p.offsets[row + m] + lane; i < p.offsets[row + m + 1]; i += 32) {
      const int32_t tile = p.indices[i];
      atomicOr(&rows[m * p.words + (tile >> 5)], 1u << (tile & 31));
    }
  }
  __syncwarp();
}

// The order of long groups differs from run to run, which moves no bit of the results.
template <typename Lists>
__device__ __forceinline__ void put_lists(const MergeArgs& p, int32_t group, const Lists& lists) {
  static_cast<Lists*>(p.lists)[group] = lists;
  if (lists.longest() > p.limit) p.long_groups[atomicAdd(&p.schedule->longs, 1)] = group;
}

// A warp merges the lists of a pair: for 32 key tiles at a time each lane looks at its bit of both rows and finds its
// place among the entries of its kind.
__device__ __forceinline__ void merge_pair(const MergeArgs& p, int32_t pair, uint32_t* rows, int lane) {
  const uint32_t below = (1u << lane) - 1;
  const int32_t head = pair / p.groups_a_head, q_tile = (pair - head * p.groups_a_head) * 2;
  const int64_t row = static_cast<int64_t>(head) * p.q_tiles + q_tile;
  read_rows(p, row, min(2, p.q_tiles - q_tile), 2, rows, lane);
  const int32_t begin = p.offsets[row];

  int32_t shared = 0, own[2] = {0, 0};
  for (int32_t w = lane; w < p.words; w += 32) {
    const uint32_t a = rows[w], b = rows[p.words + w];
    shared += __popc(a & b), own[0] += __popc(a & ~b), own[1] += __popc(b & ~a);
  }
  shared = __reduce_add_sync(~0u, shared);
  own[0] = __reduce_add_sync(~0u, own[0]);
  own[1] = __reduce_add_sync(~0u, own[1]);
  if (lane == 0) put_lists(p, pair, PairLists{begin, shared, {own[0], own[1]}});

  int32_t at[3] = {begin, begin + shared, begin + shared + own[0]};
  for (int32_t w = 0; w < p.words; ++w) {
    const uint32_t a = rows[w], b = rows[p.words + w];
    const uint32_t kinds[3] = {a & b, a & ~b, b & ~a};
    const int32_t tile = w * 32 + lane, entry = tile | p.classes.of(tile) << kClassShift;
#pragma unroll
    for (int kind = 0; kind < 3; ++kind) {
      if (kinds[kind] >> lane & 1) p.entries[at[kind] + __popc(kinds[kind] & below)] = entry;
      at[kind] += __popc(kinds[kind]);
    }
  }
}

// Kinds of key tiles of a group of three: which members want it (bits), those wanted by most first. A part is the kinds
// with as many members.
struct TripleKinds {
  static constexpr int kCount = 7, kParts = 3;
  __host__ __device__ static constexpr int members(int k) {
    constexpr int kMembers[kCount] = {7, 3, 5, 6, 1, 2, 4};
    return kMembers[k];
  }
  __host__ __device__ static constexpr int part(int k) { return k == 0 ? 0 : k < 4 ? 1 : 2; }
  __device__ __forceinline__ static uint32_t tiles(const uint32_t (&wanted)[3], int k) {
    uint32_t x = ~0u;
#pragma unroll
    for (int m = 0; m < 3; ++m) x &= members(k) >> m & 1 ? wanted[m] : ~wanted[m];
    return x;
  }
};

// A warp merges the lists of a triple. In a part the kinds take turns: their first tiles, their second ones, and so on.
__device__ __forceinline__ void merge_triple(const MergeArgs& p, int32_t group, uint32_t* rows, int lane) {
  using K = TripleKinds;
  const uint32_t below = (1u << lane) - 1;
  const int32_t head = group / p.groups_a_head, q_tile = (group - head * p.groups_a_head) * 3;
  const int64_t row = static_cast<int64_t>(head) * p.q_tiles + q_tile;
  read_rows(p, row, min(3, p.q_tiles - q_tile), 3, rows, lane);

  int32_t counts[K::kCount] = {};
  for (int32_t w = lane; w < p.words; w += 32) {
    const uint32_t wanted[3] = {rows[w], rows[p.words + w], rows[2 * p.words + w]};
#pragma unroll
    for (int k = 0; k < K::kCount; ++k) counts[k] += __popc(K::tiles(wanted, k));
  }
  TripleLists lists = {};
  lists.begin = p.offsets[row];
  int32_t part_begin[K::kParts + 1] = {};
#pragma unroll
  for (int k = 0; k < K::kCount; ++k) {
    counts[k] = __reduce_add_sync(~0u, counts[k]);
    lists.count += counts[k], part_begin[K::part(k) + 1] += counts[k];
#pragma unroll
    for (int m = 0; m < 3; ++m) lists.own[m] += K::members(k) >> m & 1 ? counts[k] : 0;
  }
  part_begin[0] = lists.begin;
#pragma unroll
  for (int part = 1; part <= K::kParts; ++part) part_begin[part] += part_begin[part - 1];
  if (lane == 0) put_lists(p, group, lists);

  int32_t before[K::kCount] = {};
  for (int32_t w = 0; w < p.words; ++w) {
    const uint32_t wanted[3] = {rows[w], rows[p.words + w], rows[2 * p.words + w]};
    const int32_t tile = w * 32 + lane, kind = p.classes.of(tile);
#pragma unroll
    for (int k = 0; k < K::kCount; ++k) {
      const uint32_t tiles = K::tiles(wanted, k);
      if (tiles >> lane & 1) {
        const int32_t rank = before[k] + __popc(tiles & below);
        int32_t at = part_begin[K::part(k)];
#pragma unroll
        for (int other = 0; other < K::kCount; ++other) {
          if (K::part(other) == K::part(k)) at += min(counts[other], rank + (other < k ? 1 : 0));
        }
        p.entries[at] = tile | kind << kClassShift | K::members(k) << kMembersShift;
      }
      before[k] += __popc(tiles);
    }
  }
}

// Rows of padding become 0: they may hold NaN, which 0 times is NaN. (Padding of K only makes scores that are masked.)
__device__ __forceinline__ void clean_tile(const MergeArgs& p, int32_t index) {
  const int32_t b = index / p.kv_tiles, tile = index - b * p.kv_tiles, kind = p.classes.of(tile);
  if (kind == 0) return;
  const uint64_t valid = p.classes.valid[kind];
  const uint4* from = p.v + static_cast<int64_t>(index) * kTileVolume * p.vectors;
  uint4* to =
      p.v_clean + (static_cast<int64_t>(b) * p.classes.partial + p.classes.rank(tile)) * kTileVolume * p.vectors;
  for (int32_t i = threadIdx.x; i < kTileVolume * p.vectors; i += 32 * kMergeWarps) {
    to[i] = valid >> (i / p.vectors) & 1 ? from[i] : uint4{};
  }
}

template <int kMembers>
__device__ __forceinline__ void merge_block(const MergeArgs& p, int32_t block) {
  extern __shared__ uint32_t merge_rows[];
  if (block >= p.merge_blocks) return clean_tile(p, block - p.merge_blocks);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int32_t group = block * kMergeWarps + warp;
  if (group >= p.groups) return;
  uint32_t* rows = merge_rows + warp * kMembers * p.words;
  if constexpr (kMembers == 2) {
    merge_pair(p, group, rows, lane);
  } else {
    merge_triple(p, group, rows, lane);
  }
}

// May run beside the kernel ahead of it (launch_beside): lists, v and the schedule's zeros were there before that
// began.
template <int kMembers>
__global__ void __launch_bounds__(32 * kMergeWarps) merge_lists(const __grid_constant__ MergeArgs p) {
  const auto block = static_cast<int32_t>(blockIdx.x);
  merge_block<kMembers>(p, block);
  if (block == 0) ptx::dependent_launch_wait();
}

}  // namespace vsa::cuda::sm90
