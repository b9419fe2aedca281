#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/tile_columns.cuh"

// The coarse row that all tokens of a tile share stays in registers, and so does the sum of its gradient. Bound by
// memory. Products and sums are rounded one by one, never fused, so that the CPU gives the same bits.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kForwardSlots = 4;   // of up to three loads each
constexpr int kBackwardSlots = 4;  // of up to four

template <int V>
__device__ __forceinline__ Vector<float, V> product(const Vector<float, V>& x, const Vector<float, V>& y) {
  Vector<float, V> z;
#pragma unroll
  for (int c = 0; c < V; ++c) z.element[c] = __fmul_rn(x.element[c], y.element[c]);
  return z;
}

template <int V>
__device__ __forceinline__ Vector<float, V> sum(const Vector<float, V>& x, const Vector<float, V>& y) {
  Vector<float, V> z;
#pragma unroll
  for (int c = 0; c < V; ++c) z.element[c] = __fadd_rn(x.element[c], y.element[c]);
  return z;
}

template <typename T>
struct ForwardArgs {
  const T* fine;         // [B, rows, width]
  const float* coarse;   // [B, tiles, width], or null
  const T* coarse_gate;  // [B, rows, width], or null
  const T* fine_gate;    // [B, rows, width], or null
  T* output;             // [B, rows, width]
};

template <typename T>
struct BackwardArgs {
  const T* fine;         // [B, rows, width], or null
  const float* coarse;   // [B, tiles, width], or null
  const T* coarse_gate;  // [B, rows, width], or null
  const T* fine_gate;    // [B, rows, width], or null
  const T* doutput;      // [B, rows, width]
  T* dfine;              // [B, rows, width], or null
  float* dcoarse;        // [B, tiles, width], or null
  T* dcoarse_gate;       // [B, rows, width], or null
  T* dfine_gate;         // [B, rows, width], or null
};

// Rows of a few slots, all of them asked for before the first is used. Padding is 0, whatever lies there.
template <typename T, int V, int kSlots>
struct Rows {
  Bits<T, V> row[kSlots];

  __device__ __forceinline__ void load(const T* from, const int64_t (&at)[kSlots], const bool (&valid)[kSlots]) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      row[i] = {};
      if (valid[i]) row[i] = *reinterpret_cast<const Bits<T, V>*>(from + at[i]);
    }
  }
};

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    combination_forward(TileLayout layout, int32_t width, uint32_t parts, ForwardArgs<T> p) {
  const Part part = Part::of_thread<V>(layout, width, parts);
  if (!part.exists) return;
  const TilePlace place = layout.place(part.tile);
  Vector<float, V> coarse = {};
  if (p.coarse != nullptr) coarse = *reinterpret_cast<const Vector<float, V>*>(p.coarse + part.pooled);
#pragma unroll 1
  for (int begin = 0; begin < kTileVolume; begin += kForwardSlots) {
    Rows<T, V, kForwardSlots> fine, fine_gate, coarse_gate;
    int64_t at[kForwardSlots];
    bool valid[kForwardSlots];
#pragma unroll
    for (int i = 0; i < kForwardSlots; ++i) {
      at[i] = part.tokens + static_cast<int64_t>(place.row(begin + i)) * width;
      valid[i] = place.valid(begin + i);
    }
    fine.load(p.fine, at, valid);
    if (p.fine_gate != nullptr) fine_gate.load(p.fine_gate, at, valid);
    if (p.coarse_gate != nullptr) coarse_gate.load(p.coarse_gate, at, valid);
#pragma unroll
    for (int i = 0; i < kForwardSlots; ++i) {
      if (!valid[i] && !layout.tiled) continue;  // no such row
      Vector<float, V> result = to_float<T, V>(fine.row[i]);
      if (p.fine_gate != nullptr) result = product(result, to_float<T, V>(fine_gate.row[i]));
      if (p.coarse_gate != nullptr) {
        result = sum(result, product(to_float<T, V>(coarse_gate.row[i]), coarse));
      } else if (p.coarse != nullptr) {
        result = sum(result, coarse);
      }
      const Bits<T, V> output = rounded<T>(result), zero = {};
      *reinterpret_cast<Bits<T, V>*>(p.output + at[i]) = valid[i] ? output : zero;
    }
  }
}

template <typename T, int V>
__global__ void __launch_bounds__(kThreads)
    combination_backward(TileLayout layout, int32_t width, uint32_t parts, BackwardArgs<T> p) {
  using Tokens = Bits<T, V>;
  const Part part = Part::of_thread<V>(layout, width, parts);
  if (!part.exists) return;
  const TilePlace place = layout.place(part.tile);
  const Tokens zero = {};
  Vector<float, V> coarse = {}, dcoarse = {};
  if (p.coarse_gate != nullptr) coarse = *reinterpret_cast<const Vector<float, V>*>(p.coarse + part.pooled);
  const bool gated_dfine = p.dfine != nullptr && p.fine_gate != nullptr;
#pragma unroll 1
  for (int begin = 0; begin < kTileVolume; begin += kBackwardSlots) {
    Rows<T, V, kBackwardSlots> doutput, fine, fine_gate, coarse_gate;
    int64_t at[kBackwardSlots];
    bool valid[kBackwardSlots];
#pragma unroll
    for (int i = 0; i < kBackwardSlots; ++i) {
      at[i] = part.tokens + static_cast<int64_t>(place.row(begin + i)) * width;
      valid[i] = place.valid(begin + i);
    }
    doutput.load(p.doutput, at, valid);
    if (p.fine_gate != nullptr) fine.load(p.fine, at, valid);
    if (gated_dfine) fine_gate.load(p.fine_gate, at, valid);
    if (p.coarse_gate != nullptr) coarse_gate.load(p.coarse_gate, at, valid);
#pragma unroll
    for (int i = 0; i < kBackwardSlots; ++i) {
      if (!valid[i] && !layout.tiled) continue;  // no such row
      const auto write = [&](T* to, const Tokens& gradient) {
        *reinterpret_cast<Tokens*>(to + at[i]) = valid[i] ? gradient : zero;
      };
      const Vector<float, V> gradient = to_float<T, V>(doutput.row[i]);
      if (p.fine_gate != nullptr) write(p.dfine_gate, rounded<T>(product(gradient, to_float<T, V>(fine.row[i]))));
      if (gated_dfine) {
        write(p.dfine, rounded<T>(product(gradient, to_float<T, V>(fine_gate.row[i]))));
      } else if (p.dfine != nullptr) {
        write(p.dfine, doutput.row[i]);
      }
      if (p.coarse_gate != nullptr) {
        write(p.dcoarse_gate, rounded<T>(product(gradient, coarse)));
        dcoarse = sum(dcoarse, product(gradient, to_float<T, V>(coarse_gate.row[i])));
      } else if (p.dcoarse != nullptr) {
        dcoarse = sum(dcoarse, gradient);
      }
    }
  }
  if (p.dcoarse != nullptr) *reinterpret_cast<Vector<float, V>*>(p.dcoarse + part.pooled) = dcoarse;
}

}  // namespace

void launch(const CombinationForward& p, const Launch& on) {
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  const TileLayout layout(p.grid, p.order);
  for_vectors<kThreads>(
      p.dtype, p.B, p.H, p.D, layout, {p.fine, p.coarse, p.coarse_gate, p.fine_gate, p.output},
      [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
        using T = decltype(element);
        const ForwardArgs<T> args{static_cast<const T*>(p.fine), p.coarse, static_cast<const T*>(p.coarse_gate),
                                  static_cast<const T*>(p.fine_gate), static_cast<T*>(p.output)};
        combination_forward<T, vector()><<<blocks, kThreads, 0, on.stream>>>(layout, width, parts, args);
        check_launch("combination_forward");
      });
}

void launch(const CombinationBackward& p, const Launch& on) {
  VSA_CHECK((p.coarse == nullptr) == (p.dcoarse == nullptr), "coarse and its gradient must come together");
  VSA_CHECK((p.coarse_gate == nullptr) == (p.dcoarse_gate == nullptr), "coarse gate and gradient must come together");
  VSA_CHECK((p.fine_gate == nullptr) == (p.dfine_gate == nullptr), "fine gate and gradient must come together");
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  VSA_CHECK(p.fine != nullptr || p.fine_gate == nullptr, "a fine gate needs the fine output");
  const TileLayout layout(p.grid, p.order);
  for_vectors<kThreads>(
      p.dtype, p.B, p.H, p.D, layout,
      {p.fine, p.coarse, p.coarse_gate, p.fine_gate, p.doutput, p.dfine, p.dcoarse, p.dcoarse_gate, p.dfine_gate},
      [&](auto element, auto vector, uint32_t blocks, int32_t width, uint32_t parts) {
        using T = decltype(element);
        const BackwardArgs<T> args{static_cast<const T*>(p.fine),
                                   p.coarse,
                                   static_cast<const T*>(p.coarse_gate),
                                   static_cast<const T*>(p.fine_gate),
                                   static_cast<const T*>(p.doutput),
                                   static_cast<T*>(p.dfine),
                                   p.dcoarse,
                                   static_cast<T*>(p.dcoarse_gate),
                                   static_cast<T*>(p.dfine_gate)};
        combination_backward<T, vector()><<<blocks, kThreads, 0, on.stream>>>(layout, width, parts, args);
        check_launch("combination_backward");
      });
}

}  // namespace vsa::cuda
