#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace vsa {

// For every query tile the key tiles of the largest scores scale * dot(q, k), in fp32: ties to the lowest index,
// -0 equals +0, NaN ranks below -inf; written as ascending lists. Source: arXiv 2505.13389.
// A video query tile keeps   exempt:  all prefix key tiles, and the top_k of the video key tiles;
//                            compete: the (top_k + prefix_k) best of all key tiles.
// A prefix query tile (index < prefix_q) keeps all Nk key tiles. The lengths are thus known before the launch.
struct Selection {
  int64_t B, H, Hkv, D;
  int64_t Nq, Nk;              // query and key tiles, prefix tiles included
  int64_t prefix_q, prefix_k;  // how many of them are prefix tiles; they come first
  int64_t top_k;               // K, 1 <= K <= Nk - prefix_k
  PrefixMode prefix_mode;
  bool include_self;  // query tile i always keeps key tile i, which counts in K (needs equal grids)
  float scale;
  const float* q;        // [B, Nq, H, D], pooled
  const float* k;        // [B, Nk, Hkv, D], pooled
  float* scores;         // [B, H, Nq, Nk], the very scores that were ranked; or null
  int64_t score_stride;  // floats from a row of scores to the next: Nk, or Nk rounded up to a multiple of 4
  int32_t* offsets;      // [B * H * Nq + 1]
  int32_t* indices;      // [offsets[B * H * Nq]]
};

}  // namespace vsa
