#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/launch.h"
#include "cuda/sm90/tensor_map.h"
#include "cuda/sm90/tile_classes.h"
#include "cuda/tile_layout.h"

// The fine attention backward for Hopper: a pre-pass (fine_backward_prepare.cuh), dK and dV by key tile, dQ by query
// tile. Both passes are persistent: a block per SM takes items from a table, longest first.
namespace vsa::cuda::sm90::fine_backward {

inline constexpr int kTeams = 2;       // dK, dV: in a block, with a key tile each at a time
inline constexpr int kQueryTiles = 2;  // dQ: in a block at a time, neighbours
// Tiles in a part of a split list, at least: a part costs 64 KB (D = 128) of fp32 sums written and read.
inline constexpr int kShortestPart = 32;

// An item of a pass: a tile, or a group of neighbouring tiles, of one head, and the part of its list that is to be
// done. All numbers that the producer wants, which has no registers for divisions.
struct alignas(16) Item {
  int32_t head_of_batch;  // b * heads + head
  int32_t group;          // of tiles, in the head
  int32_t b, head;        // of the item's own tiles
  int32_t list_head;      // of its lists' tiles; of the first of them in a GQA group
  int32_t begin, end;     // positions in the list (all heads of a GQA group one after another); INT32_MAX: to its end
  int32_t part;           // where its fp32 sums go, to be added to those of its other parts; -1: it is whole
};

// A tile whose list was split: its parts are neighbours.
struct alignas(16) Split {
  int32_t b, head, tile, first_part, parts, unused[3];
};

// What a pass has to do: made on the device by the pre-pass, because lists are there.
struct Plan {
  int32_t* next;         // the item that the next block takes
  int32_t* item_count;   // in items
  int32_t* split_count;  // in splits
  Item* items;           // [groups of all heads + max_parts]
  Split* splits;         // [max_parts / 2]
  float* parts;          // [max_parts, 2, 64 * D]: dK, dV as the accumulators lie (store_part)
  int32_t max_parts;     // 0: lists are never split
  int32_t workers;       // that take items at a time
  int32_t group_tiles;   // tiles in a group: 1 or 2
  int32_t groups;        // a head has
  // Where group_tiles > 1 and lists are not full, the union of a group's lists: tile << 2 | who has it. Group g of
  // list row r begins where r's list does.
  int32_t* merged;         // [entries of the lists]
  int32_t* merged_counts;  // [B * H * groups]
};

// Where a tile's boxes begin (slot_boxes in tensor_map.h): a table, for divisions want registers.
struct alignas(16) TileSource {
  int32_t x, y, t;
  int32_t map;  // and the tile's class << 8
};

struct Args {
  int32_t B, H, Hkv, group;  // group = H / Hkv
  TileLayout q_layout, kv_layout;
  TileClasses q_classes, kv_classes;
  float scale, scale_log2;  // scale_log2 = scale * log2(e)
  const int32_t* offsets;   // lists; null: full
  const int32_t* indices;
  const int32_t* t_offsets;  // transposed lists; null: full
  const int32_t* t_indices;
  const void *output, *doutput;  // [B, q_rows, H, D]
  const float* lse;              // [B, H, q_rows], natural log
  const float* dq_pooled;        // [B, q_tiles, H, D], or null
  const float* dk_pooled;        // [B, kv_tiles, Hkv, D], or null
  const float* dv_pooled;        // [B, kv_tiles, Hkv, D], or null
  float* delta;                  // [B, H, q_rows]
  bool delta_ready;              // it is an input
  // [B, H, q_tiles, 64], what the passes read of a tile's rows: in tiled order lse and delta themselves, in grid order
  // copies of them. Padding's may be -inf.
  float *lse_of_slots, *delta_of_slots;
  bool has_rows;  // the pre-pass has something to do for every row: delta, or the copies
  void *dq, *dk, *dv;
  TileSource* q_sources;   // [q_tiles], or null: all {0, 0, 0, 0} (tiled order without padding)
  TileSource* kv_sources;  // [kv_tiles], or null
  Plan dkdv, dq_plan;
};

// slot_boxes of the two tensors of either side. Padding of stationary tiles only reaches rows of the results that are
// not stored, so in tiled order those of class 0 do for all; padding of streaming tiles must come as zeros.
struct Maps {
  CUtensorMap stationary[2][kGridMaps];  // dK, dV: k, v; dQ: q, dO
  CUtensorMap streaming[2][kTiledMaps];  // the others
};

// The kernels, on the launch's stream. Defined in fine_backward_<dtype>_<D>.cu, apart, so that they compile in
// parallel.
template <typename T, int D>
void launch_kernels(const Args&, const Maps& dkdv, const Maps& dq, const Launch&);

}  // namespace vsa::cuda::sm90::fine_backward
