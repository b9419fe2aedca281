#include "cuda/check.h"
#include "cuda/fast_division.h"
#include "cuda/launch.h"
#include "cuda/tile_columns.cuh"

// Bound by memory: a row of all heads is read (or written) whole, 16 bytes a thread, with kSlots rows in flight. Every
// sum has one order, that of the CPU.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kSlots = 8;         // rows in flight: with 8 all of a large problem's threads fit the SMs' registers
constexpr int kPartialSlots = 4;  // of a tile that is not full

// All warps of an SM begin at once and issue in turn what comes before the first load, so that it is kept short: no
// division, and the rows of full tiles from a table.
template <typename T>
struct ForwardArgs {
  TileLayout layout;
  int32_t width;
  uint32_t parts;
  FastDivision by_vectors, by_tiles, by_nx, by_ny;
  int64_t offsets[kTileVolume];  // elements, from slot 0 of a full video tile
  const T* x;
  float* output;

  ForwardArgs(const TileLayout& layout_, int32_t width_, uint32_t parts_, int V, const T* x_, float* output_)
      : layout(layout_),
        width(width_),
        parts(parts_),
        by_vectors(width_ / V),
        by_tiles(layout_.tiles),
        by_nx(layout_.Nx > 0 ? layout_.Nx : 1),
        by_ny(layout_.Ny > 0 ? layout_.Ny : 1),
        x(x_),
        output(output_) {
    for (int slot = 0; slot < kTileVolume; ++slot) {
      const int64_t column = slot & ((1 << layout.log_x) - 1), line = slot >> layout.log_x;
      const int64_t y = line & ((1 << layout.log_y) - 1), t = line >> layout.log_y;
      offsets[slot] = (layout.tiled ? slot : (t * layout.Y + y) * layout.X + column) * width;
    }
  }
};

// The valid slots of a tile, in order.
struct ValidSlots {
  int32_t x = 0, y = 0, left;
  int32_t row;  // from slot 0

  __device__ __forceinline__ explicit ValidSlots(const TilePlace& place) : left(place.count()), row(0) {}
  __device__ __forceinline__ void next(const TilePlace& place) {
    --left, ++row;
    if (++x < place.end_x) return;
    x = 0, row += place.stride_y - place.end_x;
    if (++y < place.end_y) return;
    y = 0, row += place.stride_t - place.end_y * place.stride_y;
  }
};

template <typename T, int V>
__device__ __forceinline__ void add(float (&sum)[V], const Bits<T, V>& bits) {
  const auto token = bit_cast<Vector<T, V>>(bits);
#pragma unroll
  for (int c = 0; c < V; ++c) sum[c] += static_cast<float>(token.element[c]);
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads) pooling_forward(const __grid_constant__ ForwardArgs<T> p) {
  using Tokens = Bits<T, V>;
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.parts) return;
  const uint32_t row = p.by_vectors(item), b = p.by_tiles(row), tile = row - b * p.by_tiles.divisor;
  const uint32_t column = (item - row * p.by_vectors.divisor) * V;
  const TilePlace place = p.layout.place(static_cast<int32_t>(tile), p.by_nx, p.by_ny);
  const int32_t count = place.count();
  const T* first = p.x + ((static_cast<int64_t>(b) * p.layout.rows + place.base) * p.width + column);
  float sum[V] = {};
  if (count == kTileVolume && static_cast<int32_t>(tile) >= p.layout.prefix_tiles) {
#pragma unroll 1
    for (int begin = 0; begin < kTileVolume; begin += kSlots) {
      Tokens tokens[kSlots];
#pragma unroll
      for (int i = 0; i < kSlots; ++i) {
        tokens[i] = __ldcs(reinterpret_cast<const Tokens*>(first + p.offsets[begin + i]));
      }
#pragma unroll
      for (int i = 0; i < kSlots; ++i) add<T, V>(sum, tokens[i]);
    }
  } else {
    ValidSlots slots(place);
#pragma unroll 1
    while (slots.left > 0) {
      Tokens tokens[kPartialSlots];
#pragma unroll
      for (int i = 0; i < kPartialSlots; ++i) {
        tokens[i] = {};
        if (slots.left > 0) {
          tokens[i] = __ldcs(reinterpret_cast<const Tokens*>(first + static_cast<int64_t>(slots.row) * p.width));
        }
        slots.next(place);
      }
#pragma unroll
      for (int i = 0; i < kPartialSlots; ++i) add<T, V>(sum, tokens[i]);
    }
  }
  Vector<float, V> mean;
  if ((count & (count - 1)) == 0) {  // a power of two: the product is the quotient, bit for bit
    const float inverse = __int_as_float((127 - (31 - __clz(count))) << 23);
#pragma unroll
    for (int c = 0; c < V; ++c) mean.element[c] = sum[c] * inverse;
  } else {
#pragma unroll
    for (int c = 0; c < V; ++c) mean.element[c] = sum[c] / static_cast<float>(count);
  }
  *reinterpret_cast<Vector<float, V>*>(p.output + (static_cast<int64_t>(row) * p.width + column)) = mean;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) pooling_backward(TileLayout layout, int32_t width, uint32_t parts,
                                                             const float* __restrict__ doutput, T* __restrict__ dx) {
  using Tokens = Bits<T, V>;
  const Part part = Part::of_thread<V>(layout, width, parts);
  if (!part.exists) return;
  const TilePlace place = layout.place(part.tile);
  const float count = static_cast<float>(place.count());
  const Vector<float, V> gradient = *reinterpret_cast<const Vector<float, V>*>(doutput + part.pooled);
  Vector<T, V> share;
#pragma unroll
  for (int c = 0; c < V; ++c) share.element[c] = static_cast<T>(gradient.element[c] / count);
  const Tokens bits = bit_cast<Tokens>(share), zero = {};
  T* first = dx + part.tokens;
#pragma unroll kSlots
  for (int slot = 0; slot < kTileVolume; ++slot) {
    const bool valid = place.valid(slot);
    if (!valid && !layout.tiled) continue;  // no such row
    // Not read again soon: L2 may give the rows up first.
    __stcs(reinterpret_cast<Tokens*>(first + static_cast<int64_t>(place.row(slot)) * width), valid ? bits : zero);
  }
}

}  // namespace

void launch(const PoolingForward& p, const Launch& on) {
  const TileLayout layout(p.grid, p.order);
  for_vectors<kThreads>(p.dtype, p.B, p.H, p.D, layout, {p.x, p.output},
                        [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
                          using T = decltype(element);
                          const ForwardArgs<T> args(layout, width, parts, vector(), static_cast<const T*>(p.x),
                                                    p.output);
                          pooling_forward<T, vector()><<<blocks, kThreads, 0, on.stream>>>(args);
                          check_launch("pooling_forward");
                        });
}

void launch(const PoolingBackward& p, const Launch& on) {
  const TileLayout layout(p.grid, p.order);
  for_vectors<kThreads>(p.dtype, p.B, p.H, p.D, layout, {p.dx, p.doutput},
                        [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
                          using T = decltype(element);
                          pooling_backward<T, vector()><<<blocks, kThreads, 0, on.stream>>>(
                              layout, width, parts, p.doutput, static_cast<T*>(p.dx));
                          check_launch("pooling_backward");
                        });
}

}  // namespace vsa::cuda
