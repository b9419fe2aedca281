#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/ptx/math.h"
#include "cuda/sm90/fine_forward_args.cuh"

namespace vsa::cuda::sm90 {

// The two rows of a query tile that a thread has: slots 16 w + g and + 8 (wgmma.h).
struct QueryRows {
  bool exists[2];   // a token
  bool written[2];  // has a row in memory: in tiled order padding has
  int32_t row[2];

  __device__ __forceinline__ QueryRows(const FineForwardArgs& p, int32_t q_tile, int thread) {
    const bool any = q_tile < p.q_tiles;
    const TilePlace place = p.q_layout.place(any ? q_tile : 0);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int slot = thread / 32 * 16 + thread % 32 / 4 + 8 * r;
      exists[r] = any && place.valid(slot);
      written[r] = any && (exists[r] || p.q_layout.tiled);
      row[r] = place.row(slot);
    }
  }
};

// Two elements of the combination (combination.cu): products and sums are rounded one by one. Gates that are absent
// are 1 and a coarse output that is absent is -0: then x * 1 and x + 1 * -0 are x, bit for bit.
template <typename T>
__device__ __forceinline__ uint32_t combine(uint32_t fine, uint32_t fine_gate, uint32_t coarse_gate, float coarse_low,
                                            float coarse_high) {
  const float2 x = ptx::unpack<T>(fine), fine_by = ptx::unpack<T>(fine_gate), by = ptx::unpack<T>(coarse_gate);
  return ptx::pack<T>(__fadd_rn(__fmul_rn(x.x, fine_by.x), __fmul_rn(by.x, coarse_low)),
                      __fadd_rn(__fmul_rn(x.y, fine_by.y), __fmul_rn(by.y, coarse_high)));
}

// The end of an item: a thread's part of two rows, in pieces of 16 bytes, and what it is combined with. Piece i is of
// row i % 2. Gates are asked for kAhead pieces ahead, the first when this is made: before the item's last product,
// which hides their latency, where there are registers for it. The coarse output, which a tile's rows share, is asked
// for a column of pieces ahead.
template <typename T, int D>
struct Output {
  static constexpr int kPieces = D / 16, kAhead = 3;
  static constexpr uint32_t kOnes = std::is_same_v<T, __half> ? 0x3c003c00 : 0x3f803f80;

  const FineForwardArgs& p;
  const QueryRows& rows;
  const int32_t head;
  const int thread;
  int64_t at[2];      // elements of [B, rows, H, D]: the first pieces
  int64_t coarse_at;  // of [B, tiles, H, D]
  uint4 coarse_gate[kAhead], fine_gate[kAhead];
  float4 coarse[2][2];  // of this column of pieces and of the next

  __device__ __forceinline__ Output(const FineForwardArgs& args, int32_t head_, int32_t q_tile, const QueryRows& rows_,
                                    int thread_)
      : p(args), rows(rows_), head(head_), thread(thread_) {
    const int32_t b = head / p.H, h = head - b * p.H, column = thread % 4 * 8;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      at[r] = ((static_cast<int64_t>(b) * p.q_layout.rows + rows.row[r]) * p.H + h) * D + column;
    }
    coarse_at = ((static_cast<int64_t>(b) * p.q_tiles + min(q_tile, p.q_tiles - 1)) * p.H + h) * D + column;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load_gates(i);
    load_coarse(0);
  }

  // `combines`: whether p.combined is wanted, a bool or a constant.
  template <typename S, typename B>
  __device__ __forceinline__ void store(const float (&o)[D / 2], const S& softmax, B combines) {
    store_lse(softmax);
    bool zero[2];
    float factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      zero[r] = softmax.total[r] == 0 || !rows.exists[r];
      factor[r] = 1.0f / softmax.total[r];
    }
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int r = piece % 2;
      const int64_t element = at[r] + piece / 2 * 32;
      uint32_t x[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int first = 4 * (piece / 2 * 4 + i) + 2 * r;
        const uint32_t pair = ptx::pack<T>(o[first] * factor[r], o[first + 1] * factor[r]);
        x[i] = zero[r] ? 0 : pair;
      }
      transpose(x);
      if (rows.written[r]) *reinterpret_cast<uint4*>(static_cast<T*>(p.output) + element) = {x[0], x[1], x[2], x[3]};
      if (!combines) continue;
      const uint4 sum = combined(piece, x), none = {0, 0, 0, 0};
      if (rows.written[r]) {
        __stcs(reinterpret_cast<uint4*>(static_cast<T*>(p.combined) + element), rows.exists[r] ? sum : none);
      }
    }
  }

private:
  __device__ __forceinline__ void load_gates(int piece) {
    const auto read = [&](const void* gate) {  // not again soon
      return __ldcs(reinterpret_cast<const uint4*>(static_cast<const T*>(gate) + at[piece % 2] + piece / 2 * 32));
    };
    uint4 &coarse_ = coarse_gate[piece % kAhead], &fine = fine_gate[piece % kAhead];
    fine = coarse_ = {kOnes, kOnes, kOnes, kOnes};
    if (!rows.exists[piece % 2]) return;
    if (p.fine_gate != nullptr) fine = read(p.fine_gate);
    if (p.coarse_gate != nullptr) coarse_ = read(p.coarse_gate);
  }
  __device__ __forceinline__ void load_coarse(int column) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float4& x = coarse[column % 2][i];
      x = {-0.0f, -0.0f, -0.0f, -0.0f};
      if (p.coarse != nullptr) x = __ldg(reinterpret_cast<const float4*>(p.coarse + coarse_at + column * 32) + i);
    }
  }

  template <typename S>
  __device__ __forceinline__ void store_lse(const S& softmax) const {
    if (thread % 4 != 0) return;
    float* lse = p.lse + static_cast<int64_t>(head) * p.q_layout.rows;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // No key, no score above -inf, or no query.
      if (rows.written[r]) lse[rows.row[r]] = softmax.total[r] == 0 || !rows.exists[r] ? -INFINITY : softmax.lse(r);
    }
  }

  // Four threads have 4 bytes each of four pieces; then each has a piece: x[i] of thread j and x[j] of thread i change
  // places, first where bit 0 of i and j differs, then bit 1.
  __device__ __forceinline__ void transpose(uint32_t (&x)[4]) const {
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const uint32_t got = __shfl_xor_sync(~0u, thread & 1 ? x[i] : x[i + 1], 1);
      (thread & 1 ? x[i] : x[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t got = __shfl_xor_sync(~0u, thread & 2 ? x[i] : x[i + 2], 2);
      (thread & 2 ? x[i] : x[i + 2]) = got;
    }
  }

  // Of a piece of output; and asks for what later ones need.
  __device__ __forceinline__ uint4 combined(int piece, const uint32_t (&x)[4]) {
    const uint4 g = coarse_gate[piece % kAhead], f = fine_gate[piece % kAhead];
    const float4 low = coarse[piece / 2 % 2][0], high = coarse[piece / 2 % 2][1];
    if (piece + kAhead < kPieces) load_gates(piece + kAhead);
    if (piece % 2 == 0 && piece + 2 < kPieces) load_coarse(piece / 2 + 1);
    return {combine<T>(x[0], f.x, g.x, low.x, low.y), combine<T>(x[1], f.y, g.y, low.z, low.w),
            combine<T>(x[2], f.z, g.z, high.x, high.y), combine<T>(x[3], f.w, g.w, high.z, high.w)};
  }
};

}  // namespace vsa::cuda::sm90
