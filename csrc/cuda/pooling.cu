#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/launch.h"
#include "cuda/tile_columns.cuh"

// Bound by memory: a row of all heads is read (or written) whole, 16 bytes a thread, with kSlots rows in flight. Every
// sum has one order, that of the CPU.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kSlots = 8;         // rows in flight: with 8 all of a large problem's threads fit the SMs' registers
constexpr int kPartialSlots = 4;  // of a tile that is not full

constexpr int kMost = PoolingTogether::kMost;

// kCount: 1 or kMost. One by itself has nothing to choose: its arguments are constants of the kernel.
template <typename T, int kCount>
struct ForwardArgs {
  Columns problems[kCount];
  uint32_t end[kCount];  // blocks of the problems up to this one
  const T* x[kCount];
  float* output[kCount];
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

template <typename T, int V, int kCount>
__global__ void __launch_bounds__(kThreads, 1024 / kThreads)
    pooling_forward(const __grid_constant__ ForwardArgs<T, kCount> args) {
  using Tokens = Bits<T, V>;
  int which = 0;
#pragma unroll
  for (int i = 0; i + 1 < kCount; ++i) which += blockIdx.x >= args.end[i];
  const uint32_t block = which == 0 ? blockIdx.x : blockIdx.x - args.end[which - 1];
  const Columns& p = args.problems[which];
  const uint32_t item = block * kThreads + threadIdx.x;
  if (item >= p.parts) return;
  const Part part = Part::of<V>(p, item);
  const int32_t count = part.place.count();
  const T* first = args.x[which] + part.tokens;
  float sum[V] = {};
  if (part.full) {
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
    ValidSlots slots(part.place);
#pragma unroll 1
    while (slots.left > 0) {
      Tokens tokens[kPartialSlots];
#pragma unroll
      for (int i = 0; i < kPartialSlots; ++i) {
        tokens[i] = {};
        if (slots.left > 0) {
          tokens[i] = __ldcs(reinterpret_cast<const Tokens*>(first + static_cast<int64_t>(slots.row) * p.width));
        }
        slots.next(part.place);
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
  *reinterpret_cast<Vector<float, V>*>(args.output[which] + part.pooled) = mean;
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    pooling_backward(const __grid_constant__ Columns p, const float* __restrict__ doutput, T* __restrict__ dx) {
  using Tokens = Bits<T, V>;
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.parts) return;
  const Part part = Part::of<V>(p, item);
  const float count = static_cast<float>(part.place.count());
  const Vector<float, V> gradient = *reinterpret_cast<const Vector<float, V>*>(doutput + part.pooled);
  Vector<T, V> share;
#pragma unroll
  for (int c = 0; c < V; ++c) share.element[c] = static_cast<T>(gradient.element[c] / count);
  const Tokens bits = bit_cast<Tokens>(share), zero = {};
  T* first = dx + part.tokens;
#pragma unroll kSlots
  for (int slot = 0; slot < kTileVolume; ++slot) {
    const bool valid = part.place.valid(slot);
    if (!valid && !p.layout.tiled) continue;  // no such row
    // Not read again soon: L2 may give the rows up first.
    const int64_t at = static_cast<int64_t>(part.place.row(slot) - part.place.base) * p.width;
    __stcs(reinterpret_cast<Tokens*>(first + at), valid ? bits : zero);
  }
}

template <int kCount>
void launch_forward(const PoolingTogether& p, const Launch& on) {
  const auto of = [&](int i) -> const PoolingForward& { return p.parts[i < p.count ? i : 0]; };
  for (int i = 1; i < kCount; ++i) VSA_CHECK(of(i).dtype == of(0).dtype, "tensors pooled together have one dtype");
  for_vectors(of(0).dtype, {of(0).H * of(0).D, of(1).H * of(1).D, of(2).H * of(2).D},
              {of(0).x, of(0).output, of(1).x, of(1).output, of(2).x, of(2).output}, [&](auto element, auto vector) {
                using T = decltype(element);
                ForwardArgs<T, kCount> args{};
                int64_t blocks = 0;
                for (int i = 0; i < kCount; ++i) {
                  if (i < p.count) args.problems[i] = columns_of(of(i), vector(), 1);
                  blocks += (int64_t{args.problems[i].parts} + kThreads - 1) / kThreads;
                  args.end[i] = static_cast<uint32_t>(blocks);
                  args.x[i] = static_cast<const T*>(of(i).x), args.output[i] = of(i).output;
                }
                if (blocks == 0) return;
                launch_kernel(pooling_forward<T, vector(), kCount>, "pooling_forward", on,
                              static_cast<uint32_t>(blocks), kThreads, 0, args);
              });
}

}  // namespace

void launch(const PoolingTogether& p, const Launch& on) {
  VSA_CHECK(p.count > 0 && p.count <= kMost, "1 to 3 tensors are pooled together");
  p.count == 1 ? launch_forward<1>(p, on) : launch_forward<kMost>(p, on);
}

void launch(const PoolingForward& p, const Launch& on) {
  launch(PoolingTogether{1, {p}}, on);
}

void launch(const PoolingBackward& p, const Launch& on) {
  for_vectors(p.dtype, {p.H * p.D}, {p.dx, p.doutput}, [&](auto element, auto vector) {
    using T = decltype(element);
    const Columns columns = columns_of(p, vector(), 1);
    const uint32_t blocks = (columns.parts + kThreads - 1) / kThreads;
    if (blocks == 0) return;
    launch_kernel(pooling_backward<T, vector()>, "pooling_backward", on, blocks, kThreads, 0, columns, p.doutput,
                  static_cast<T*>(p.dx));
  });
}

}  // namespace vsa::cuda
