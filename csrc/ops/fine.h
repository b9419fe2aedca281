#pragma once

#include "core/dtype.h"
#include "core/tile_grid.h"
#include "core/tile_lists.h"
#include "ops/combination.h"

namespace vsa {

// Which of a GPU's kernels: the fastest that take the problem, only those for every GPU, or only Hopper's own.
enum class Kernels { fastest, portable, sm90 };

// Attention of every valid token of a query tile over exactly the valid tokens of its list's key tiles.
// Hkv divides H. Rows of q are q_grid.rows(order), rows of k and v kv_grid.rows(order).
struct FineForward {
  DType dtype;  // of q, k, v and output: float32, bfloat16 or float16
  int64_t B, H, Hkv, D;
  TileGrid q_grid, kv_grid;
  Order order;  // of all token tensors
  float scale;
  TileLists lists;  // rows = q_grid.total_tiles(), columns = kv_grid.total_tiles()
  const void* q;    // [B, q_rows, H, D]; padding rows may hold any bits, NaN included
  const void* k;    // [B, kv_rows, Hkv, D]
  const void* v;    // [B, kv_rows, Hkv, D]
  void* output;     // [B, q_rows, H, D]; 0 for an empty list and for padding
  float* lse;       // [B, H, q_rows], natural log; -inf for an empty list and for padding
  Kernels kernels;
  // The gated combination, or none where `combined` is null: bit for bit that of CombinationForward on `output`.
  const float* coarse;      // [B, q_tiles, H, D], or null: not added
  const void* coarse_gate;  // [B, q_rows, H, D], or null: 1 (only with coarse)
  const void* fine_gate;    // [B, q_rows, H, D], or null: 1
  void* combined;           // [B, q_rows, H, D], or null
};

// The combination as a pass of its own.
inline CombinationForward combination_of(const FineForward& f) {
  return {f.dtype, f.B, f.H, f.D, f.q_grid, f.order, f.output, f.coarse, f.coarse_gate, f.fine_gate, f.combined};
}

// Two deterministic passes: dq by query tile, dk and dv by key tile through the transposed lists; P from lse.
// Where pooled gradients are given, every valid token of tile i also receives them over valid(i): the gradient of
// the pooling, folded into the epilogue.
struct FineBackward {
  DType dtype;  // of q, k, v, output, doutput and of dq, dk, dv
  int64_t B, H, Hkv, D;
  TileGrid q_grid, kv_grid;
  Order order;
  float scale;
  TileLists lists;         // rows = q tiles, columns = kv tiles
  TileLists transposed;    // rows = kv tiles, columns = q tiles; full where lists is full
  const void* q;           // [B, q_rows, H, D]
  const void* k;           // [B, kv_rows, Hkv, D]
  const void* v;           // [B, kv_rows, Hkv, D]
  const void* output;      // [B, q_rows, H, D]
  const float* lse;        // [B, H, q_rows]
  const void* doutput;     // [B, q_rows, H, D]; padding rows may hold any bits
  const float* dq_pooled;  // [B, q_tiles, H, D], or null
  const float* dk_pooled;  // [B, kv_tiles, Hkv, D], or null
  const float* dv_pooled;  // [B, kv_tiles, Hkv, D], or null
  float* delta;            // [B, H, q_rows]: rowsum(doutput * output)
  bool delta_ready;        // delta is there (CombinationBackward has made it), else it is workspace
  void* dq;                // [B, q_rows, H, D], or doutput's own memory; padding rows are written as 0
  void* dk;                // [B, kv_rows, Hkv, D]
  void* dv;                // [B, kv_rows, Hkv, D]
  Kernels kernels;
};

}  // namespace vsa
