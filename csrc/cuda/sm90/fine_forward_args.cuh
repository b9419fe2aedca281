#pragma once

#include <cuda.h>

#include <cstdint>

#include "cuda/fast_division.h"
#include "cuda/sm90/tile_classes.h"
#include "cuda/tile_layout.h"

namespace vsa::cuda::sm90 {

// Tiles lie in shared memory in panels of 64 columns (128 bytes a row), as TMA's 128-byte swizzle writes them and wgmma
// reads them.
inline constexpr int kPanelColumns = 64;
inline constexpr int kPanelBytes = kTileVolume * 128;

// An entry of merged lists: the key tile's number, its class (tile_classes.h), and for triples and quads the members
// that want it.
inline constexpr int kClassShift = 24, kMembersShift = 28;
inline constexpr int32_t kTileMask = (1 << kClassShift) - 1;

// The merged lists of two neighbouring query tiles of a head, from `begin` on: first the key tiles that both have, then
// those of the first alone, then those of the second alone; each part ascends.
struct alignas(16) PairLists {
  int32_t begin;
  int32_t shared;  // key tiles of both
  int32_t own[2];  // key tiles of one alone
  __host__ __device__ int32_t longest() const { return shared + (own[0] > own[1] ? own[0] : own[1]); }
};

// Those of three: first the tiles that all want, then those of two members, then those of one; in each part the members
// take turns, so that none waits long for its next tile.
struct alignas(32) TripleLists {
  int32_t begin, count;  // of the union
  int32_t own[3];        // tiles that a member wants
  __host__ __device__ int32_t longest() const {
    const int32_t a = own[0] > own[1] ? own[0] : own[1];
    return a > own[2] ? a : own[2];
  }
};

// Which groups a block takes: block b starts with number b, then numbers come from `next`. Groups with long lists have
// the first numbers, the others follow head by head, so that the K and V of few heads at a time are wanted from L2.
struct Schedule {
  int32_t next;   // numbers given out beyond the first ones
  int32_t longs;  // groups in long_groups
  uint32_t done;  // workers that have found no more; the last one leaves all of this as it was, 0
};

// A tensor in grid order [B, prefix + T * Y * X, heads * D]: boxes of 64 columns of a tile, straight from its tokens.
// What lies beyond the grid comes as zeros, so padding needs no care.
struct GridBoxes {
  CUtensorMap video;   // (column, x, y, t, batch)
  CUtensorMap prefix;  // (column, row, batch)
  int32_t prefix_tiles, Nx, Ny;
  int32_t log_t, log_y, log_x;  // of a tile's dims
  FastDivision by_x, by_y;      // by Nx, by Ny
};

struct FineForwardArgs {
  // Tiled order: [B * tiles * 64, heads, D] as (64 columns, rows, panels), boxes of a tile of a head.
  CUtensorMap q, k, v;
  CUtensorMap v_clean;                  // [B * classes.partial * 64, Hkv, D]: the partial tiles of v, padding rows 0
  GridBoxes q_boxes, k_boxes, v_boxes;  // grid order
  TileLayout q_layout;                  // of output and lse
  TileClasses classes;                  // of key tiles
  int32_t H, group;                     // query heads; how many of them share a key head
  int32_t q_tiles, kv_tiles;
  int32_t groups_a_head;       // of neighbouring query tiles; the last may have fewer
  int32_t groups;              // in all
  const void* lists;           // PairLists or TripleLists [groups], or null: full lists
  const int32_t* entries;      // or null
  Schedule* schedule;          // or null: worker w takes w, w + workers, ...
  const int32_t* long_groups;  // [schedule->longs]
  int32_t limit;               // groups of which a list is longer than this are in long_groups
  int32_t parts;               // pairs: in how many parts each is cut; 1: whole
  float* partial;              // [groups, 2, parts, D / 2 + 4, 128]: what a thread has of a part; parts > 1
  int32_t* arrived;            // [groups, 2]: parts that are done, 0 at first
  float scale;                 // scale * log2(e), more than 0
  void* output;                // [B, rows, H, D]
  float* lse;                  // [B, H, rows]
  // What the output is combined with, as in FineForward.
  const float* coarse;      // [B, q_tiles, H, D], or null: not added
  const void* coarse_gate;  // [B, rows, H, D], or null: 1
  const void* fine_gate;    // [B, rows, H, D], or null: 1
  void* combined;           // [B, rows, H, D], or null: nothing is combined
};

}  // namespace vsa::cuda::sm90
