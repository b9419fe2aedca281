#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "cuda/ptx/math.h"
#include "cuda/sm90/fine_forward_args.cuh"
#include "cuda/sm90/ptx/tma.h"

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

template <typename S>
__device__ __forceinline__ void store_lse(const FineForwardArgs& p, int32_t head, const QueryRows& rows,
                                          const S& softmax, int thread) {
  if (thread % 4 != 0) return;
  float* lse = p.lse + static_cast<int64_t>(head) * p.q_layout.rows;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // No key, no score above -inf, or no query.
    if (rows.written[r]) lse[rows.row[r]] = softmax.total[r] == 0 || !rows.exists[r] ? -INFINITY : softmax.lse(r);
  }
}

// Where a row of a head begins, in elements of [B, rows, H, D].
__device__ __forceinline__ int64_t element_of(const FineForwardArgs& p, int32_t head, int32_t row, int D) {
  const int32_t b = head / p.H, h = head - b * p.H;
  return ((static_cast<int64_t>(b) * p.q_layout.rows + row) * p.H + h) * D;
}

// At an item's begin, so that the gates are in L2 at its end, when nothing else hides their latency.
template <int D>
__device__ __forceinline__ void prefetch_gates(const FineForwardArgs& p, int32_t head, const QueryRows& rows,
                                               int thread) {
  if (p.combined == nullptr || thread % 4 != 0) return;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (!rows.exists[r]) continue;
    const int64_t bytes = element_of(p, head, rows.row[r], D) * 2;
    if (p.coarse_gate != nullptr) ptx::prefetch_l2(static_cast<const char*>(p.coarse_gate) + bytes, D * 2);
    if (p.fine_gate != nullptr) ptx::prefetch_l2(static_cast<const char*>(p.fine_gate) + bytes, D * 2);
  }
}

// Two elements of the combination (combination.cu): products and sums are rounded one by one. Gates that are absent
// are 1 and a coarse output that is absent is -0: then x * 1 and x + 1 * -0 are x, bit for bit.
template <typename T>
__device__ __forceinline__ uint32_t combine(uint32_t fine, uint32_t fine_gate, uint32_t coarse_gate, float coarse_low,
                                            float coarse_high) {
  const float2 x = ptx::unpack<T>(fine), fine_by = ptx::unpack<T>(fine_gate), by = ptx::unpack<T>(coarse_gate);
  return ptx::pack<T>(__fadd_rn(__fmul_rn(x.x, fine_by.x), __fmul_rn(by.x, coarse_low)),
                      __fadd_rn(__fmul_rn(x.y, fine_by.y), __fmul_rn(by.y, coarse_high)));
}

// What a thread's pieces of output are combined with; piece i is 8 columns of row i % 2. Gates are asked for a few
// pieces ahead, what a tile's rows share a column of pieces ahead.
template <typename T, int D>
struct Gates {
  static constexpr int kPieces = D / 16, kAhead = 3;
  static constexpr uint32_t kOnes = std::is_same_v<T, __half> ? 0x3c003c00 : 0x3f803f80;

  const FineForwardArgs& p;
  const QueryRows& rows;
  int64_t at[2];      // elements, of either row
  const float* from;  // of the coarse output
  uint4 fine[kAhead], coarse[kAhead];
  float4 shared[2][2];  // coarse output, of this column of pieces and the next

  __device__ __forceinline__ Gates(const FineForwardArgs& args, const QueryRows& rows_, int32_t head, int32_t q_tile,
                                   int64_t (&elements)[2], int c)
      : p(args), rows(rows_), at{elements[0], elements[1]} {
    const int32_t b = head / p.H, h = head - b * p.H;
    from = p.coarse + ((static_cast<int64_t>(b) * p.q_tiles + q_tile) * p.H + h) * D + c * 8;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) load(i);
    load_shared(0);
  }

  __device__ __forceinline__ void load(int piece) {
    const int64_t element = at[piece % 2] + piece / 2 * 32;
    uint4 ones = {kOnes, kOnes, kOnes, kOnes};
    fine[piece % kAhead] = coarse[piece % kAhead] = ones;
    if (!rows.exists[piece % 2]) return;
    const auto read = [&](const void* gate) {  // not again soon
      return __ldcs(reinterpret_cast<const uint4*>(static_cast<const T*>(gate) + element));
    };
    if (p.fine_gate != nullptr) fine[piece % kAhead] = read(p.fine_gate);
    if (p.coarse_gate != nullptr) coarse[piece % kAhead] = read(p.coarse_gate);
  }
  __device__ __forceinline__ void load_shared(int column) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      shared[column % 2][i] = {-0.0f, -0.0f, -0.0f, -0.0f};
      if (p.coarse != nullptr) {
        shared[column % 2][i] = __ldg(reinterpret_cast<const float4*>(from + column * 32) + i);
      }
    }
  }

  // Piece `piece`, of which x is the output; and asks for those that come later.
  __device__ __forceinline__ uint4 combined(int piece, const uint32_t (&x)[4]) {
    const uint4 a = fine[piece % kAhead], g = coarse[piece % kAhead];
    const float4 low = shared[piece / 2 % 2][0], high = shared[piece / 2 % 2][1];
    if (piece + kAhead < kPieces) load(piece + kAhead);
    if (piece % 2 == 0 && piece + 2 < kPieces) load_shared(piece / 2 + 1);
    return {combine<T>(x[0], a.x, g.x, low.x, low.y), combine<T>(x[1], a.y, g.y, low.z, low.w),
            combine<T>(x[2], a.z, g.z, high.x, high.y), combine<T>(x[3], a.w, g.w, high.z, high.w)};
  }
};

// Rows in 16-byte pieces: four threads have 4 bytes of each piece, so they transpose four pieces among themselves.
// `combined(piece, x)` is told of each.
template <typename T, int D, typename S, typename F>
__device__ __forceinline__ void store_rows(const FineForwardArgs& p, const QueryRows& rows, const float (&o)[D / 2],
                                           const S& softmax, const int64_t (&elements)[2], int c, const F& combined) {
  bool zero[2];
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    zero[r] = softmax.total[r] == 0 || !rows.exists[r];
    factor[r] = 1.0f / softmax.total[r];
  }
#pragma unroll
  for (int piece = 0; piece < D / 16; ++piece) {
    const int r = piece % 2, first = piece / 2 * 4;
    uint32_t x[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = 4 * (first + i) + 2 * r;
      const uint32_t pair = ptx::pack<T>(o[at] * factor[r], o[at + 1] * factor[r]);
      x[i] = zero[r] ? 0 : pair;
    }
    // x[i] of thread j and x[j] of thread i change places: first where bit 0 of i and j differs, then bit 1.
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
      const uint32_t got = __shfl_xor_sync(~0u, c & 1 ? x[i] : x[i + 1], 1);
      (c & 1 ? x[i] : x[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t got = __shfl_xor_sync(~0u, c & 2 ? x[i] : x[i + 2], 2);
      (c & 2 ? x[i] : x[i + 2]) = got;
    }
    if (rows.written[r]) {
      *reinterpret_cast<uint4*>(static_cast<T*>(p.output) + elements[r] + first * 8) = {x[0], x[1], x[2], x[3]};
    }
    combined(piece, x);
  }
}

template <typename T, int D, typename S>
__device__ __forceinline__ void store_output(const FineForwardArgs& p, int32_t head, int32_t q_tile,
                                             const QueryRows& rows, const float (&o)[D / 2], const S& softmax,
                                             int thread) {
  const int c = thread % 4;
  int64_t elements[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) elements[r] = element_of(p, head, rows.row[r], D) + c * 8;
  if (p.combined == nullptr) {
    return store_rows<T, D>(p, rows, o, softmax, elements, c, [](int, const uint32_t(&)[4]) {});
  }
  Gates<T, D> gates(p, rows, head, q_tile, elements, c);
  store_rows<T, D>(p, rows, o, softmax, elements, c, [&](int piece, const uint32_t(&x)[4]) {
    const int r = piece % 2;
    const uint4 sum = gates.combined(piece, x), zero = {0, 0, 0, 0};
    if (rows.written[r]) {
      __stcs(reinterpret_cast<uint4*>(static_cast<T*>(p.combined) + elements[r] + piece / 2 * 32),
             rows.exists[r] ? sum : zero);
    }
  });
}

}  // namespace vsa::cuda::sm90
