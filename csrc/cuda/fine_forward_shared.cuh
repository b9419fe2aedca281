#pragma once

#include <cstdint>

#include "cuda/tile_layout.h"

namespace vsa::cuda {

// What was tuned (NOTES.md has the measurements).
template <int D_, int kWarps_, int kMinBlocks_, bool kQInRegisters_>
struct FineForwardConfig {
  static constexpr int D = D_;
  static constexpr int kWarps = kWarps_;                 // 2: each has 32 query rows; 4: 16
  static constexpr int kMinBlocks = kMinBlocks_;         // blocks an SM should hold: bounds the registers
  static constexpr bool kQInRegisters = kQInRegisters_;  // or read from shared memory for every key tile
};

template <typename T>
struct FineForwardParams {
  TileLayout q_layout, kv_layout;
  const int32_t* offsets;  // null: full lists
  const int32_t* indices;
  int32_t H, group;        // query heads; how many of them share a key head
  uint32_t q_row, kv_row;  // bytes of a row
  bool negative, zero;     // the sign of the scale: Q is negated, or 0
  float scale;             // |scale| * log2(e), or 1: more than 0, so that the order of scores is that of products
  const T* q;
  const T* k;
  const T* v;
  T* output;
  float* lse;
};

// A key tile of the list, as the loads want it.
struct alignas(16) KeyTile {
  int32_t base;    // row of slot 0
  int32_t prefix;  // 1: a tile of the prefix, whose slots are neighbours
  uint64_t valid;  // a bit a slot

  __device__ __forceinline__ bool full() const { return valid == ~uint64_t{0}; }
};

inline constexpr int kListWindow = 32;  // key tiles of the list whose places are found at once

template <typename C>
struct alignas(128) FineForwardShared {
  static constexpr int kTileBytes = kTileVolume * C::D * 2;
  uint8_t k[kTileBytes];
  uint8_t v[kTileBytes];
  uint8_t q_own[C::kQInRegisters ? 128 : kTileBytes];
  union {
    KeyTile window[kListWindow];
    int32_t query_rows[kTileVolume];  // before and after the loop; ~row where the slot is padding
  };
  // In 16 bytes, of the slots of a key tile: video, prefix. In the order in which a thread loads them.
  alignas(16) uint32_t row_offsets[2][kTileVolume];

  // Q, and at the end the output. With Q in registers it borrows the place of V, which comes later.
  __device__ __forceinline__ uint8_t* q() { return C::kQInRegisters ? v : q_own; }
};

__device__ __forceinline__ uint64_t valid_slots(const TilePlace& place) {
  const uint64_t run = ~uint64_t{0} >> (kTileVolume - place.end_x);
  uint64_t valid = 0;
  for (int t = 0; t < place.end_t; ++t) {
    for (int y = 0; y < place.end_y; ++y) valid |= run << (t << place.shift_y | y << place.shift_x);
  }
  return valid;
}

}  // namespace vsa::cuda
