#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tile_columns.cuh"

// Bound by memory: a row of all heads is read (or written) whole, 16 bytes a thread, with kSlots rows in flight. Every
// sum has one order, that of the CPU.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSlots = 8;  // rows in flight: with 8 all of a large problem's threads fit the SMs' registers

template <typename T, int V>
__global__ void __launch_bounds__(kThreads) pooling_forward(TileLayout layout, int32_t width, uint32_t parts,
                                                            const T* __restrict__ x, float* __restrict__ output) {
  using Tokens = Bits<T, V>;
  const Part part = Part::of_thread<V>(layout, width, parts);
  if (!part.exists) return;
  const TilePlace place = layout.place(part.tile);
  const T* first = x + part.tokens;
  float sum[V] = {};
#pragma unroll 1
  for (int begin = 0; begin < kTileVolume; begin += kSlots) {
    Tokens tokens[kSlots];
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      tokens[i] = {};  // 0 for padding, whatever lies there
      if (place.valid(begin + i)) {
        tokens[i] = *reinterpret_cast<const Tokens*>(first + static_cast<int64_t>(place.row(begin + i)) * width);
      }
    }
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      const auto token = bit_cast<Vector<T, V>>(tokens[i]);
#pragma unroll
      for (int c = 0; c < V; ++c) sum[c] += static_cast<float>(token.element[c]);
    }
  }
  const float count = static_cast<float>(place.count());
  Vector<float, V> mean;
#pragma unroll
  for (int c = 0; c < V; ++c) mean.element[c] = sum[c] / count;
  *reinterpret_cast<Vector<float, V>*>(output + part.pooled) = mean;
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
    *reinterpret_cast<Tokens*>(first + static_cast<int64_t>(place.row(slot)) * width) = valid ? bits : zero;
  }
}

}  // namespace

void launch(const PoolingForward& p, const Launch& on) {
  const TileLayout layout(p.grid, p.order);
  for_vectors<kThreads>(p.dtype, p.B, p.H, p.D, layout, {p.x, p.output},
                        [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
                          using T = decltype(element);
                          pooling_forward<T, vector()><<<blocks, kThreads, 0, on.stream>>>(
                              layout, width, parts, static_cast<const T*>(p.x), p.output);
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
