#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cfloat>
#include <cmath>
#include <cstdint>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/fine.h"
#include "cuda/fine_forward_shared.cuh"
#include "cuda/kernel_attributes.h"
#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/math.h"
#include "cuda/ptx/mma.h"
#include "cuda/swizzle.h"
#include "cuda/tile_layout.h"

namespace vsa::cuda {

// Fine attention of one query tile a block, over the key tiles of its list, with an online softmax: flash attention
// (arXiv 2205.14135, 2307.08691) on mma.sync, with tiles of 64 queries and 64 keys.

template <typename T, typename C>
struct FineForwardBlock {
  static constexpr int D = C::D;
  static constexpr int kThreads = 32 * C::kWarps;
  static constexpr int kRows = kTileVolume / C::kWarps;  // query rows of a warp
  static constexpr int kM = kRows / 16;                  // 16-row blocks of a warp
  static constexpr int kN = kTileVolume / 8;             // 8-key blocks of a tile
  using Rows = Swizzle<D>;
  using Shared = FineForwardShared<C>;
  static_assert(kM == 1 || kM == 2, "a warp has 16 or 32 query rows");

  // Loads: kLanes threads take neighbouring chunks of a row, kRowsAtOnce rows at a time.
  static constexpr int kLanes = D == 128 ? 16 : D == 64 ? 8 : 4;
  static constexpr int kRowsAtOnce = kThreads / kLanes;
  static constexpr int kPasses = kTileVolume / kRowsAtOnce;
  static_assert(Rows::kChunks % kLanes == 0 && kPasses % 4 == 0, "loads must come out even");

  // Scores further than this above the row's reference, in powers of 2, make it a new one. The reference need not be
  // the maximum: P stays below 2^8, which bfloat16, float16 and the fp32 sums hold as well as 1.
  static constexpr float kSlack = 8;

  const FineForwardParams<T>& p;
  Shared& shared;
  const int thread, lane, warp;
  int32_t list_count;
  int64_t kv_offset;  // of this thread's chunk of row 0 of the head

  float sum[kM][D / 8][4];  // P V
  float reference[kM][2];   // of each row, times the scale
  float total[kM][2];       // this thread's part of the row sums of P

  __device__ __forceinline__ FineForwardBlock(const FineForwardParams<T>& params, Shared& memory)
      : p(params), shared(memory), thread(threadIdx.x), lane(threadIdx.x % 32), warp(threadIdx.x / 32) {}

  // blockIdx.x, read anew each time: what is made of it would cost registers in the loop, which has none left.
  __device__ __forceinline__ static int32_t block_index() {
    int32_t x;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(x));
    return x;
  }
  // Head after head, so that the K and V of the few heads at work stay in L2.
  __device__ __forceinline__ int32_t head_index() const { return block_index() / p.q_layout.tiles; }
  __device__ __forceinline__ int32_t query_tile() const { return block_index() % p.q_layout.tiles; }
  __device__ __forceinline__ int64_t q_offset() const {  // of the query head's row 0
    const int32_t head = head_index(), b = head / p.H, h = head - b * p.H;
    return (static_cast<int64_t>(b) * p.q_layout.rows * p.H + h) * D;
  }

  // Where this thread's chunk of row `pass * kRowsAtOnce + thread / kLanes` goes.
  __device__ __forceinline__ uint32_t load_target(uint32_t first, int pass) const {
    return (first ^ Rows::phase(pass * kRowsAtOnce) * 16) + pass * kRowsAtOnce * Rows::kRowBytes;
  }
  __device__ __forceinline__ uint32_t first_target(const uint8_t* tile) const {
    return ptx::shared_address(tile) + Rows::offset(thread / kLanes, thread % kLanes);
  }

  // The places of list entries from `first` on. Another barrier must come before they are used.
  __device__ __forceinline__ void fill_window(int32_t first) {
    const int32_t entry = first + thread;
    if (thread >= kListWindow || entry >= list_count) return;
    const int32_t tile = p.offsets == nullptr ? entry : p.indices[p.offsets[blockIdx.x] + entry];
    const TilePlace place = p.kv_layout.place(tile);
    shared.window[entry % kListWindow] = {place.base, tile < p.kv_layout.prefix_tiles, valid_slots(place)};
  }

  __device__ __forceinline__ void fill_row_offsets() {
    if (thread >= kTileVolume) return;
    for (int slot = thread; slot < kTileVolume; slot += kThreads) {
      const int at = slot % kRowsAtOnce * kPasses + slot / kRowsAtOnce;
      const TilePlace video = p.kv_layout.place(p.kv_layout.prefix_tiles);
      shared.row_offsets[0][at] = (video.row(slot) - video.base) * (p.kv_row / 16);
      shared.row_offsets[1][at] = slot * (p.kv_row / 16);
    }
  }

  // Starts the copy of a tile of K or V. Rows of padding become 0: they may hold NaN, which 0 times is NaN.
  __device__ __forceinline__ void load(uint8_t* target, const T* tensor, int32_t entry) {
    const KeyTile tile = shared.window[entry % kListWindow];
    // All offsets first: ptxas puts three idle reads of shared memory between each read and a copy that follows it.
    uint32_t offsets[kPasses];
    const uint4* table = reinterpret_cast<const uint4*>(shared.row_offsets[tile.prefix] + thread / kLanes * kPasses);
#pragma unroll
    for (int i = 0; i < kPasses; i += 4) {
      const uint4 four = table[i / 4];
      offsets[i] = four.x, offsets[i + 1] = four.y, offsets[i + 2] = four.z, offsets[i + 3] = four.w;
    }
    int64_t offset = kv_offset;
    asm volatile("" : "+l"(offset));  // or both sums, for k and v, are kept in registers
    const uint8_t* head = reinterpret_cast<const uint8_t*>(tensor + offset);
    const uint8_t* from = head + static_cast<uint64_t>(static_cast<uint32_t>(tile.base)) * p.kv_row;
    asm("" : "+l"(from));  // one sum, to which each row adds its offset in one instruction
    const uint32_t to = first_target(target);
    if (tile.full()) {
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const uint8_t* row = from + static_cast<uint64_t>(offsets[pass]) * 16;
#pragma unroll
        for (int c = 0; c < Rows::kChunks; c += kLanes) {
          ptx::cp_async_16(Rows::advance(load_target(to, pass), c), row + c * 16);
        }
      }
    } else {
      const uint64_t valid = tile.valid >> (thread / kLanes);
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const bool exists = valid >> (pass * kRowsAtOnce) & 1;
        const uint8_t* row = exists ? from + static_cast<uint64_t>(offsets[pass]) * 16 : head;
#pragma unroll
        for (int c = 0; c < Rows::kChunks; c += kLanes) {
          ptx::cp_async_16(Rows::advance(load_target(to, pass), c), row + c * 16, exists);
        }
      }
    }
  }
  __device__ __forceinline__ void load_k(int32_t entry) {
    load(shared.k, p.k, entry);
  }
  __device__ __forceinline__ void load_v(int32_t entry) {
    load(shared.v, p.v, entry);
  }

  __device__ __forceinline__ void fill_query_rows() {
    if (thread >= kTileVolume) return;
    const TilePlace place = p.q_layout.place(query_tile());
    const int32_t row = place.row(thread);
    shared.query_rows[thread] = place.valid(thread) ? row : ~row;
  }

  __device__ __forceinline__ void load_q() {
    int32_t rows[kPasses];
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) rows[pass] = shared.query_rows[pass * kRowsAtOnce + thread / kLanes];
    const uint8_t* head = reinterpret_cast<const uint8_t*>(p.q + q_offset() + thread % kLanes * 8);
    const uint32_t to = first_target(shared.q());
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const bool exists = rows[pass] >= 0 && !p.zero;
      const uint8_t* row = head + (exists ? static_cast<uint64_t>(static_cast<uint32_t>(rows[pass])) * p.q_row : 0);
#pragma unroll
      for (int c = 0; c < Rows::kChunks; c += kLanes) {
        ptx::cp_async_16(Rows::advance(load_target(to, pass), c), row + c * 16, exists);
      }
    }
  }

  __device__ __forceinline__ void negate_q() {
    uint32_t* words = reinterpret_cast<uint32_t*>(shared.q());
    for (int i = thread; i < Shared::kTileBytes / 4; i += kThreads) words[i] ^= 0x80008000u;
    __syncthreads();
  }

  // Fragments of a 16-column step of Q: rows of this warp.
  __device__ __forceinline__ void read_q(uint32_t (&a)[kM][4], int step) {
    const uint32_t base = ptx::shared_address(shared.q()) + warp * kRows * Rows::kRowBytes;
    const uint32_t address = Rows::advance(base + Rows::offset(lane % 16, lane / 16), 2 * step);
#pragma unroll
    for (int m = 0; m < kM; ++m) ptx::ldmatrix_x4(a[m], address + m * 16 * Rows::kRowBytes);
  }

  // s = Q K^T
  __device__ __forceinline__ void score(float (&s)[kM][kN][4], const uint32_t (&q)[D / 16][kM][4]) {
    const uint32_t base = ptx::shared_address(shared.k) + Rows::offset(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int n = 0; n < kN; ++n) s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
    }
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      uint32_t a[kM][4];
      if constexpr (C::kQInRegisters) {
#pragma unroll
        for (int i = 0; i < 4 * kM; ++i) a[i / 4][i % 4] = q[step][i / 4][i % 4];
      } else {
        read_q(a, step);
      }
      const uint32_t address = Rows::advance(base, 2 * step);
#pragma unroll
      for (int n = 0; n < kN; n += 2) {
        uint32_t b[4];
        ptx::ldmatrix_x4(b, address + n * 8 * Rows::kRowBytes);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          ptx::mma_m16n8k16<T>(s[m][n], a[m], b[0], b[1]);
          ptx::mma_m16n8k16<T>(s[m][n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }

  // Keys that are padding.
  __device__ __forceinline__ void mask(float (&s)[kM][kN][4], uint64_t valid) {
    valid >>= lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (valid >> (n * 8 + i % 2) & 1) continue;
#pragma unroll
        for (int m = 0; m < kM; ++m) s[m][n][i] = -INFINITY;
      }
    }
  }

  // Raises the references, and rescales what was summed so far, if a score is far above: seldom after the first tile.
  __device__ __forceinline__ void raise_references(const float (&s)[kM][kN][4]) {
    float maximum[kM][2];
    bool above = false;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float x = fmaxf(s[m][0][2 * r], s[m][0][2 * r + 1]);  // passes over NaN, which reaches the sums below
#pragma unroll
        for (int n = 1; n < kN; ++n) x = fmaxf(x, fmaxf(s[m][n][2 * r], s[m][n][2 * r + 1]));
        maximum[m][r] = x * p.scale;
        above |= maximum[m][r] > reference[m][r] + kSlack;
      }
    }
    if (!__any_sync(~0u, above)) return;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      float correction[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float x = maximum[m][r];
        x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
        x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
        x = fmaxf(x, reference[m][r]);
        correction[r] = ptx::exp2(reference[m][r] - x);
        reference[m][r] = x;
        total[m][r] *= correction[r];
      }
#pragma unroll
      for (int n = 0; n < D / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) sum[m][n][i] *= correction[i / 2];
      }
    }
  }

  // One register of the P fragments of 16 keys, from the scores: unit = (m, register of the fragment).
  static constexpr int kUnits = 4 * kM;
  __device__ __forceinline__ void exponentiate(uint32_t (&a)[kM][4], const float (&s)[kM][kN][4], int step, int unit) {
    const int m = unit / 4, n = 2 * step + unit % 4 / 2, r = unit % 2;
    const float x = ptx::exp2(fmaf(s[m][n][2 * r], p.scale, -reference[m][r]));
    const float y = ptx::exp2(fmaf(s[m][n][2 * r + 1], p.scale, -reference[m][r]));
    total[m][r] += x + y;
    a[m][unit % 4] = ptx::pack<T>(x, y);
  }

  // sum += P V, with the exponentials of the next 16 keys among the products of these.
  __device__ __forceinline__ void accumulate(const float (&s)[kM][kN][4]) {
    const uint32_t base = ptx::shared_address(shared.v) + Rows::offset(lane % 16, lane / 16);
    constexpr int kSteps = kTileVolume / 16, kPairs = D / 16;
    uint32_t a[2][kM][4];
#pragma unroll
    for (int unit = 0; unit < kUnits; ++unit) exponentiate(a[0], s, 0, unit);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        uint32_t b[4];
        ptx::ldmatrix_x4_trans(b, Rows::advance(base, 2 * pair) + step * 16 * Rows::kRowBytes);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
          ptx::mma_m16n8k16<T>(sum[m][2 * pair], a[step % 2][m], b[0], b[1]);
          ptx::mma_m16n8k16<T>(sum[m][2 * pair + 1], a[step % 2][m], b[2], b[3]);
        }
        if (step + 1 == kSteps) continue;
#pragma unroll
        for (int unit = pair * kUnits / kPairs; unit < (pair + 1) * kUnits / kPairs; ++unit) {
          exponentiate(a[(step + 1) % 2], s, step + 1, unit);
        }
      }
    }
  }

  // Divides by the row sums and writes lse, and the output through shared memory for whole rows at a time.
  __device__ __forceinline__ void finish() {
    uint8_t* staged = shared.q() + warp * kRows * Rows::kRowBytes;
    float* lse = p.lse + static_cast<int64_t>(head_index()) * p.q_layout.rows;
#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float x = total[m][r];
        x += __shfl_xor_sync(~0u, x, 1);
        x += __shfl_xor_sync(~0u, x, 2);
        const int slot_row = m * 16 + r * 8 + lane / 4, row = shared.query_rows[warp * kRows + slot_row];
        const bool empty = x == 0 || row < 0;  // no key, no score above -inf, or no query
        if (lane % 4 == 0 && (row >= 0 || p.q_layout.tiled)) {
          lse[row < 0 ? ~row : row] = empty ? -INFINITY : (reference[m][r] + log2f(x)) * 0.693147180559945f;
        }
        const float factor = 1.0f / x;
#pragma unroll
        for (int n = 0; n < D / 8; ++n) {
          const uint32_t pair = ptx::pack<T>(sum[m][n][2 * r] * factor, sum[m][n][2 * r + 1] * factor);
          *reinterpret_cast<uint32_t*>(staged + Rows::offset(slot_row, n) + lane % 4 * 4) = empty ? 0 : pair;
        }
      }
    }
    __syncwarp();
    uint8_t* head = reinterpret_cast<uint8_t*>(p.output + q_offset());
#pragma unroll 4
    for (int i = lane; i < kRows * Rows::kChunks; i += 32) {
      const int slot_row = i / Rows::kChunks, chunk = i % Rows::kChunks;
      const int32_t row = shared.query_rows[warp * kRows + slot_row];
      if (row < 0 && !p.q_layout.tiled) continue;
      *reinterpret_cast<uint4*>(head + static_cast<uint64_t>(static_cast<uint32_t>(row < 0 ? ~row : row)) * p.q_row +
                                chunk * 16) = *reinterpret_cast<const uint4*>(staged + Rows::offset(slot_row, chunk));
    }
  }

  __device__ __forceinline__ void run() {
    if (p.offsets == nullptr) {
      list_count = p.kv_layout.tiles;
    } else {
      list_count = p.offsets[blockIdx.x + 1] - p.offsets[blockIdx.x];
    }
    const int32_t head = head_index(), b = head / p.H, h = head - b * p.H, Hkv = p.H / p.group;
    kv_offset = (static_cast<int64_t>(b) * p.kv_layout.rows * Hkv + h / p.group) * D + thread % kLanes * 8;

    fill_query_rows();
    fill_row_offsets();
    __syncthreads();
    load_q();
    __syncthreads();
    fill_window(0);
    __syncthreads();
    if (list_count > 0) load_k(0);
    ptx::cp_async_commit();

#pragma unroll
    for (int m = 0; m < kM; ++m) {
#pragma unroll
      for (int r = 0; r < 2; ++r) reference[m][r] = -FLT_MAX, total[m][r] = 0;
#pragma unroll
      for (int n = 0; n < D / 8; ++n) sum[m][n][0] = sum[m][n][1] = sum[m][n][2] = sum[m][n][3] = 0;
    }
    uint32_t q[D / 16][kM][4];
    if (C::kQInRegisters || p.negative) {
      ptx::cp_async_wait<0>();
      __syncthreads();
      if (p.negative) negate_q();
      if constexpr (C::kQInRegisters) {
#pragma unroll
        for (int step = 0; step < D / 16; ++step) read_q(q[step], step);
      }
    }

    // K and V have one place each: V comes while the scores are made, the next K while P V is summed. Other blocks on
    // the SM fill the gaps. Before the first barrier K has come and V has been read, before the second the reverse.
#pragma unroll 1
    for (int32_t entry = 0; entry < list_count; ++entry) {
      ptx::cp_async_wait<0>();
      __syncthreads();
      load_v(entry);
      ptx::cp_async_commit();

      float s[kM][kN][4];
      score(s, q);
      const KeyTile& tile = shared.window[entry % kListWindow];
      if (!tile.full()) mask(s, tile.valid);
      raise_references(s);

      ptx::cp_async_wait<0>();
      __syncthreads();
      if ((entry + 1) % kListWindow == 0) {
        fill_window(entry + 1);
        __syncthreads();
      }
      if (entry + 1 < list_count) load_k(entry + 1);
      ptx::cp_async_commit();
      accumulate(s);
    }
    ptx::cp_async_wait<0>();
    __syncthreads();
    fill_query_rows();
    __syncthreads();
    finish();
  }
};

template <typename T, typename C>
__global__ void __launch_bounds__(32 * C::kWarps, C::kMinBlocks)
    fine_forward_16(const __grid_constant__ FineForwardParams<T> params) {
  extern __shared__ __align__(128) uint8_t memory[];
  FineForwardBlock<T, C>(params, *reinterpret_cast<FineForwardShared<C>*>(memory)).run();
}

template <typename T, typename C>
void launch_fine_forward_16(const FineForward& f, const Launch& launch) {
  const int64_t blocks = f.B * f.H * f.q_grid.total_tiles();
  if (blocks == 0) return;
  VSA_CHECK(blocks <= INT32_MAX, "a call on a GPU must have fewer than 2^31 query tiles in all heads");
  VSA_CHECK(f.kv_grid.slots() * f.Hkv * C::D / 8 <= UINT32_MAX,
            "a sequence of keys on a GPU must have less than 64 GB");
  FineForwardParams<T> p{};
  p.q_layout = TileLayout(f.q_grid, f.order), p.kv_layout = TileLayout(f.kv_grid, f.order);
  p.offsets = f.lists.offsets, p.indices = f.lists.indices;
  p.H = static_cast<int32_t>(f.H), p.group = static_cast<int32_t>(f.H / f.Hkv);
  p.q_row = static_cast<uint32_t>(f.H * C::D * 2);
  p.kv_row = static_cast<uint32_t>(f.Hkv * C::D * 2);
  p.negative = f.scale < 0, p.zero = f.scale == 0;
  p.scale = p.zero ? 1.0f : static_cast<float>(std::fabs(static_cast<double>(f.scale)) * 1.4426950408889634);
  p.q = static_cast<const T*>(f.q), p.k = static_cast<const T*>(f.k), p.v = static_cast<const T*>(f.v);
  p.output = static_cast<T*>(f.output), p.lse = f.lse;

  constexpr int kShared = sizeof(FineForwardShared<C>);
  VSA_CHECK(kShared <= launch.shared_memory, "the device must have the shared memory of fine attention");
  allow_shared_memory(fine_forward_16<T, C>, kShared, "fine_forward_16");
  launch_kernel(fine_forward_16<T, C>, "fine_forward_16", launch, static_cast<unsigned>(blocks), 32 * C::kWarps,
                kShared, p);
}

template <typename T>
void launch_fine_forward_16(const FineForward& f, const Launch& launch) {
  if (f.D == 64) {
    launch_fine_forward_16<T, FineForwardConfig<64, 2, 4, true>>(f, launch);
  } else if (f.D == 96) {
    launch_fine_forward_16<T, FineForwardConfig<96, 2, 4, false>>(f, launch);
  } else {
    launch_fine_forward_16<T, FineForwardConfig<128, 2, 4, false>>(f, launch);
  }
}

}  // namespace vsa::cuda
