#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tile_layout.h"

// A thread owns one vector of columns of one tile and goes through the tile's slots in their order: every sum has
// one order, that of the CPU, and no thread needs another's result. Bound by memory: a row of all heads is read (or
// written) whole, 16 bytes a thread, with kSlots rows in flight.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kSlots = 8;  // rows in flight: with 8 all of a large problem's threads fit the SMs' registers

// V elements of a row: 16 bytes, or a single element where widths or addresses do not allow more.
template <typename T, int V>
struct alignas(V * sizeof(T) < 16 ? V * sizeof(T) : 16) Vector {
  T element[V];
};

// The same as it waits in registers, so that two 16-bit elements share one.
template <size_t bytes>
struct BitsOf;
template <>
struct BitsOf<16> {
  using Type = uint4;
};
template <>
struct BitsOf<4> {
  using Type = uint32_t;
};
template <>
struct BitsOf<2> {
  using Type = uint16_t;
};
template <typename T, int V>
using Bits = typename BitsOf<V * sizeof(T)>::Type;

template <typename To, typename From>
__device__ __forceinline__ To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the bits are kept");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}

// What a thread works on: a vector of columns of one (batch, tile).
struct Part {
  bool exists;
  int32_t tile;
  int64_t pooled;  // element of [B, tiles, width] where the vector begins
  int64_t tokens;  // element of [B, rows, width] where it begins in row 0 of its batch

  template <int V>
  __device__ __forceinline__ static Part of_thread(const TileLayout& layout, int32_t width, uint32_t parts) {
    const uint32_t item = blockIdx.x * blockDim.x + threadIdx.x, vectors = static_cast<uint32_t>(width / V);
    const uint32_t row = item / vectors, b = row / static_cast<uint32_t>(layout.tiles);
    const int64_t column = static_cast<int64_t>(item - row * vectors) * V;
    Part part;
    part.exists = item < parts;
    part.tile = static_cast<int32_t>(row - b * static_cast<uint32_t>(layout.tiles));
    part.pooled = static_cast<int64_t>(row) * width + column;
    part.tokens = static_cast<int64_t>(b) * layout.rows * width + column;
    return part;
  }
};

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

// Calls launch(a T, elements of a vector, blocks, width, parts); nothing for an empty problem.
template <typename F>
void for_vectors(DType dtype, int64_t B, int64_t H, int64_t D, const TileLayout& layout, const void* tokens,
                 const float* pooled, const F& launch) {
  const int64_t width = H * D, rows = B * layout.tiles;
  if (rows * width == 0) return;
  VSA_CHECK(dtype != DType::int32, "tokens must be float32, bfloat16 or float16");
  const int wide = static_cast<int>(16 / size_of(dtype));
  const bool aligned = ((reinterpret_cast<uintptr_t>(tokens) | reinterpret_cast<uintptr_t>(pooled)) & 15) == 0;
  const int vector = aligned && width % wide == 0 ? wide : 1;
  const int64_t parts = rows * (width / vector);
  VSA_CHECK(width <= INT32_MAX && parts <= INT32_MAX, "too large a problem for one launch");
  const uint32_t blocks = static_cast<uint32_t>((parts + kThreads - 1) / kThreads);
  const auto go = [&](auto element) {
    using T = decltype(element);
    constexpr int kWide = 16 / sizeof(T);
    const auto w = static_cast<int32_t>(width);
    const auto n = static_cast<uint32_t>(parts);
    if (vector > 1) {
      launch(element, std::integral_constant<int, kWide>(), blocks, w, n);
    } else {
      launch(element, std::integral_constant<int, 1>(), blocks, w, n);
    }
  };
  if (dtype == DType::float32) go(float());
  if (dtype == DType::bfloat16) go(__nv_bfloat16());
  if (dtype == DType::float16) go(__half());
}

}  // namespace

void launch(const PoolingForward& p, const Launch& on) {
  const TileLayout layout(p.grid, p.order);
  for_vectors(p.dtype, p.B, p.H, p.D, layout, p.x, p.output,
              [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
                using T = decltype(element);
                pooling_forward<T, vector()>
                    <<<blocks, kThreads, 0, on.stream>>>(layout, width, parts, static_cast<const T*>(p.x), p.output);
                check_launch("pooling_forward");
              });
}

void launch(const PoolingBackward& p, const Launch& on) {
  const TileLayout layout(p.grid, p.order);
  for_vectors(p.dtype, p.B, p.H, p.D, layout, p.dx, p.doutput,
              [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
                using T = decltype(element);
                pooling_backward<T, vector()>
                    <<<blocks, kThreads, 0, on.stream>>>(layout, width, parts, p.doutput, static_cast<T*>(p.dx));
                check_launch("pooling_backward");
              });
}

}  // namespace vsa::cuda
