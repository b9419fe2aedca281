#pragma once

#include <cstdint>

#include "cuda/fine_backward_args.cuh"
#include "cuda/ptx/cp_async.h"
#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/math.h"
#include "cuda/ptx/mma.h"
#include "cuda/tile_layout.h"

// What the kernels of the 16-bit fine attention backward share: tiles in shared memory, the walk over a list, and the
// two kinds of matrix product.
namespace vsa::cuda::fine_backward {

inline constexpr int kThreads = 128;  // four warps, two by two: 32 rows of the stationary tile each

// Blocks of either pass that should fit an SM: what the registers allow at this head size.
constexpr int blocks_per_sm(int D) {
  return D == 64 ? 3 : 2;
}

// Which slots of a tile hold a token: bit s for slot s.
__device__ __forceinline__ uint64_t valid_slots(const TilePlace& place) {
  if (place.count() == kTileVolume) return ~uint64_t{0};
  // In a partial tile end_x is below 64.
  uint64_t plane = 0, slots = 0;
  for (int y = 0; y < place.end_y; ++y) plane |= ((uint64_t{1} << place.end_x) - 1) << (y << place.shift_x);
  for (int t = 0; t < place.end_t; ++t) slots |= plane << (t << place.shift_y);
  return slots;
}

// A tile of one head, as the copies want it.
struct Entry {
  uint64_t valid;   // bit s: slot s holds a token
  int64_t element;  // of slot 0, from the start of the tensor
  int32_t row;      // (b * heads + h) * tiles + tile
  bool linear;      // rows follow one another (prefix tiles), whatever the layout of video tiles

  Entry() = default;
  __device__ __forceinline__ Entry(const TileLayout& layout, int32_t b, int32_t heads, int32_t h, int32_t tile, int D) {
    const TilePlace place = layout.place(tile);
    valid = valid_slots(place);
    element = ((static_cast<int64_t>(b) * layout.rows + place.base) * heads + h) * D;
    row = (b * heads + h) * layout.tiles + tile;
    linear = tile < layout.prefix_tiles;
  }
  __device__ __forceinline__ bool full() const { return valid == ~uint64_t{0}; }
  __device__ __forceinline__ bool holds(int slot) const { return valid >> slot & 1; }
};

// 64 rows of D 16-bit elements. Eight more keep the rows of a fragment in different banks.
template <int D>
struct SharedTile {
  static constexpr int kPitch = 2 * D + 16;  // bytes: an odd number of 16-byte chunks
  // Copies: so many lanes share a row, one 16-byte chunk each (the last four of 16 idle at D = 96), so many rows a
  // pass.
  static constexpr int kLanes = D == 64 ? 8 : 16;
  static constexpr int kRows = kThreads / kLanes;
  __device__ __forceinline__ static int slot() { return threadIdx.x / kLanes; }
  __device__ __forceinline__ static int chunk() { return threadIdx.x % kLanes; }
  uint4 chunks[kTileVolume * kPitch / 16];
};

// Row distances from slot 0, the same for all video tiles: 64 values in shared memory.
__device__ __forceinline__ void fill_row_offsets(const TileLayout& layout, int32_t* row_offsets) {
  if (threadIdx.x >= kTileVolume) return;
  const int slot = threadIdx.x;
  const int x = slot & ((1 << layout.log_x) - 1), y = slot >> layout.log_x & ((1 << layout.log_y) - 1);
  const int t = slot >> (layout.log_x + layout.log_y);
  row_offsets[slot] = layout.tiled ? slot : (t * layout.Y + y) * layout.X + x;
}

// Issues the copies of one tile of each of two tensors of the same shape, [B, rows, heads, D]; padding becomes 0.
template <typename T, int D>
__device__ __forceinline__ void copy_tiles(const Entry& entry, const int32_t* row_offsets, int32_t heads,
                                           const void* first, const void* second, SharedTile<D>& to_first,
                                           SharedTile<D>& to_second) {
  using Tile = SharedTile<D>;
  const T* first_tile = static_cast<const T*>(first) + entry.element;
  const T* second_tile = static_cast<const T*>(second) + entry.element;
  const uint32_t at = Tile::slot() * Tile::kPitch + Tile::chunk() * 16;
  const uint32_t first_address = ptx::shared_address(&to_first) + at;
  const uint32_t second_address = ptx::shared_address(&to_second) + at;
  const uint64_t valid_slots = entry.valid >> Tile::slot();
  const int32_t row_stride = heads * D;
  if (Tile::chunk() * 8 >= D) return;
#pragma unroll
  for (int pass = 0; pass < kTileVolume; pass += Tile::kRows) {
    const int32_t row = entry.linear ? Tile::slot() + pass : row_offsets[Tile::slot() + pass];
    const bool valid = valid_slots >> pass & 1;
    const int64_t from = (valid ? static_cast<int64_t>(row) * row_stride : 0) + Tile::chunk() * 8;
    ptx::cp_async_16(first_address + pass * Tile::kPitch, first_tile + from, valid);
    ptx::cp_async_16(second_address + pass * Tile::kPitch, second_tile + from, valid);
  }
}

// Writes a tile from shared memory; padding rows of tiled order become 0.
template <typename T, int D>
__device__ __forceinline__ void store_tile(const Entry& entry, const int32_t* row_offsets, bool tiled, int32_t heads,
                                           const SharedTile<D>& from, void* to) {
  using Tile = SharedTile<D>;
  T* to_tile = static_cast<T*>(to) + entry.element + Tile::chunk() * 8;
  if (Tile::chunk() * 8 >= D) return;
#pragma unroll
  for (int slot = Tile::slot(); slot < kTileVolume; slot += Tile::kRows) {
    const bool valid = entry.holds(slot);
    if (!valid && !tiled) continue;
    const uint4 value = from.chunks[slot * (Tile::kPitch / 16) + Tile::chunk()];
    const int64_t row = entry.linear ? slot : row_offsets[slot];
    *reinterpret_cast<uint4*>(to_tile + row * (heads * D)) = valid ? value : make_uint4(0, 0, 0, 0);
  }
}

// The lists of a tile in the heads of a group, one after the other, as one sequence of (head, tile).
struct ListWalk {
  const int32_t* offsets;  // null: full lists
  const int32_t* indices;
  int64_t first_row;  // of the group's first head
  int32_t rows;       // a head has
  int32_t columns;
  int32_t heads;   // in the group
  int32_t b, h;    // of the first list, in the tensor that is walked
  int32_t length;  // of all lists together

  ListWalk() = default;
  __device__ __forceinline__ ListWalk(const int32_t* offsets_, const int32_t* indices_, int64_t first_row_,
                                      int32_t rows_, int32_t columns_, int32_t heads_, int32_t b_, int32_t h_)
      : offsets(offsets_),
        indices(indices_),
        first_row(first_row_),
        rows(rows_),
        columns(columns_),
        heads(heads_),
        b(b_),
        h(h_) {
    length = 0;
    if (offsets == nullptr) {
      length = heads * columns;
    } else {
      for (int g = 0; g < heads; ++g) {
        const int64_t row = first_row + static_cast<int64_t>(g) * rows;
        length += offsets[row + 1] - offsets[row];
      }
    }
  }

  // The tile at a position below length, and its head within the group.
  __device__ __forceinline__ int32_t tile(int32_t position, int32_t& head) const {
    if (offsets == nullptr) {
      head = position / columns;
      return position - head * columns;
    }
    for (head = 0;; ++head) {
      const int64_t row = first_row + static_cast<int64_t>(head) * rows;
      const int32_t begin = offsets[row], count = offsets[row + 1] - begin;
      if (position < count) return indices[begin + position];
      position -= count;
    }
  }
};

// A window of the walk in shared memory, worked out ahead: kHalf entries at a time, in place of those that are done.
struct EntryRing {
  static constexpr int kHalf = 32;
  uint64_t valid[2 * kHalf];
  int64_t elements[2 * kHalf];
  int32_t rows[2 * kHalf];  // complemented where linear

  // Puts the entry of a position, if there is one. `heads` are those of the tensor that is walked.
  __device__ __forceinline__ void put(const ListWalk& walk, const TileLayout& layout, int32_t heads, int D,
                                      int32_t position) {
    if (position >= walk.length) return;
    int32_t head;
    const int32_t tile = walk.tile(position, head);
    const Entry entry(layout, walk.b, heads, walk.h + head, tile, D);
    const int at = position % (2 * kHalf);
    valid[at] = entry.valid, elements[at] = entry.element, rows[at] = entry.linear ? ~entry.row : entry.row;
  }
  __device__ __forceinline__ Entry entry(int32_t position) const {
    const int at = position % (2 * kHalf);
    Entry e;
    e.valid = valid[at], e.element = elements[at], e.linear = rows[at] < 0, e.row = e.linear ? ~rows[at] : rows[at];
    return e;
  }
  // At the start of step `position`, when all threads have left the step before: is it time for the first kHalf
  // threads to put entries position + kHalf + threadIdx.x?
  __device__ static bool wants_more(int32_t position) { return position % kHalf == 0 && position > 0; }
};

// This lane's address for fragments whose matrices lie row block first: an a operand, or a transposed b operand.
template <int D>
__device__ __forceinline__ uint32_t rows_first(const SharedTile<D>& tile, int row) {
  const int lane = threadIdx.x % 32;
  return ptx::shared_address(&tile) + (row + lane % 16) * SharedTile<D>::kPitch + lane / 16 * 16;
}

// The same for a b operand that is stored as [column][k].
template <int D>
__device__ __forceinline__ uint32_t columns_first(const SharedTile<D>& tile, int row) {
  const int lane = threadIdx.x % 32;
  return ptx::shared_address(&tile) + (row + lane % 8 + lane / 16 * 8) * SharedTile<D>::kPitch + lane / 8 % 2 * 16;
}

// c = a b^T over D: a has 16 kM rows (address from rows_first), b has 8 kN (columns_first). Fragments of b are read
// kAhead loads before they are used: with two warps a scheduler nobody else hides the latency.
template <typename T, int D, int kAhead, int kM, int kN>
__device__ __forceinline__ void multiply_rows(float (&c)[kM][kN][4], uint32_t a_address, uint32_t b_address) {
  static_assert(kAhead <= kN / 2, "the fragments of a have two buffers: no reading further ahead than the next step");
  constexpr int kPitch = SharedTile<D>::kPitch, kLoads = kN / 2, kAll = D / 16 * kLoads;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) c[m][n][0] = c[m][n][1] = c[m][n][2] = c[m][n][3] = 0.0f;
  }
  uint32_t a[2][kM][4], b[kAhead + 1][4];
  const auto load = [&](int at) {
    const int step = at / kLoads, n = at % kLoads;
    if (n == 0) {
#pragma unroll
      for (int m = 0; m < kM; ++m) ptx::ldmatrix_x4(a[step % 2][m], a_address + m * 16 * kPitch + step * 32);
    }
    ptx::ldmatrix_x4(b[at % (kAhead + 1)], b_address + n * 16 * kPitch + step * 32);
  };
#pragma unroll
  for (int at = 0; at < kAhead; ++at) load(at);
#pragma unroll
  for (int at = 0; at < kAll; ++at) {
    if (at + kAhead < kAll) load(at + kAhead);
    const int step = at / kLoads, n = at % kLoads * 2;
    const uint32_t(&columns)[4] = b[at % (kAhead + 1)];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      ptx::mma_m16n8k16<T>(c[m][n], a[step % 2][m], columns[0], columns[1]);
      ptx::mma_m16n8k16<T>(c[m][n + 1], a[step % 2][m], columns[2], columns[3]);
    }
  }
}

// c += a b: a in fragments, 16 kK wide; b has 16 kK rows of D (address from rows_first).
template <typename T, int D, int kAhead, int kM, int kK>
__device__ __forceinline__ void accumulate(float (&c)[kM][D / 8][4], const uint32_t (&a)[kK][kM][4],
                                           uint32_t b_address) {
  constexpr int kPitch = SharedTile<D>::kPitch, kLoads = D / 16, kAll = kK * kLoads;
  uint32_t b[kAhead + 1][4];
  const auto load = [&](int at) {
    ptx::ldmatrix_x4_trans(b[at % (kAhead + 1)], b_address + at / kLoads * 16 * kPitch + at % kLoads * 32);
  };
#pragma unroll
  for (int at = 0; at < kAhead; ++at) load(at);
#pragma unroll
  for (int at = 0; at < kAll; ++at) {
    if (at + kAhead < kAll) load(at + kAhead);
    const int step = at / kLoads, n = at % kLoads * 2;
    const uint32_t(&columns)[4] = b[at % (kAhead + 1)];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      ptx::mma_m16n8k16<T>(c[m][n], a[step][m], columns[0], columns[1]);
      ptx::mma_m16n8k16<T>(c[m][n + 1], a[step][m], columns[2], columns[3]);
    }
  }
}

// Puts 16 kM rows, from `row` on, and 8 kN columns, from `column` on, of accumulators into a tile: times scale, plus
// the tile's pooled gradient over its number of tokens.
template <typename T, int D, int kM, int kN>
__device__ __forceinline__ void finish_tile(const float (&c)[kM][kN][4], float scale, const float* pooled, int count,
                                            SharedTile<D>& tile, int row, int column) {
  const int lane = threadIdx.x % 32;
  char* bytes = reinterpret_cast<char*>(&tile);
  const float share = 1.0f / static_cast<float>(count);
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const int at = column + n * 8 + lane % 4 * 2;
    float2 extra = make_float2(0.0f, 0.0f);
    if (pooled != nullptr) {
      extra = *reinterpret_cast<const float2*>(pooled + at);
      extra.x *= share, extra.y *= share;
    }
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      char* low = bytes + (row + m * 16 + lane / 4) * SharedTile<D>::kPitch + at * 2;
      *reinterpret_cast<uint32_t*>(low) = ptx::pack<T>(c[m][n][0] * scale + extra.x, c[m][n][1] * scale + extra.y);
      *reinterpret_cast<uint32_t*>(low + 8 * SharedTile<D>::kPitch) =
          ptx::pack<T>(c[m][n][2] * scale + extra.x, c[m][n][3] * scale + extra.y);
    }
  }
}

}  // namespace vsa::cuda::fine_backward
