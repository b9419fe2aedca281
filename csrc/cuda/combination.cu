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
// Threads that share a tile's slots. Only the backward has a sum over them, in the order of the CPU's.
constexpr int kForwardPieces = 4;
// At least so many blocks an SM: without a fine gate a thread has half as much in flight, so there are more of them.
template <bool kFineGate>
constexpr int kBlocks = kFineGate ? 8 : 10;

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

// Where the rows of a few slots begin, from that of slot 0. `kFull`: all are there, and the table knows where.
template <int kSlots>
struct Places {
  int64_t at[kSlots];
  bool valid[kSlots];

  template <bool kFull>
  __device__ __forceinline__ static Places of(const Columns& p, const TilePlace& place, int begin) {
    Places places;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      places.valid[i] = kFull || place.valid(begin + i);
      places.at[i] = kFull ? p.offsets[begin + i] : static_cast<int64_t>(place.row(begin + i) - place.base) * p.width;
    }
    return places;
  }
};

// Rows of a few slots, all of them asked for before the first is used. Padding is 0, whatever lies there.
template <typename T, int V, int kSlots>
struct Rows {
  Bits<T, V> row[kSlots];

  __device__ __forceinline__ void load(const T* from, const Places<kSlots>& places) {
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      row[i] = {};
      // What streams through is not read again soon: L2 may give it up first.
      if (places.valid[i]) row[i] = __ldcs(reinterpret_cast<const Bits<T, V>*>(from + places.at[i]));
    }
  }
};

// Of the slots begin to end.
template <typename T, int V, bool kFineGate, bool kFull>
__device__ __forceinline__ void combine(const Columns& columns, const Part& part, const ForwardArgs<T>& p,
                                        const Vector<float, V>& coarse, int begin, int end) {
  using Tokens = Bits<T, V>;
#pragma unroll 1
  for (; begin < end; begin += kForwardSlots) {
    Rows<T, V, kForwardSlots> fine, fine_gate, coarse_gate;
    const auto places = Places<kForwardSlots>::template of<kFull>(columns, part.place, begin);
    fine.load(p.fine + part.tokens, places);
    if (kFineGate) fine_gate.load(p.fine_gate + part.tokens, places);
    if (p.coarse_gate != nullptr) coarse_gate.load(p.coarse_gate + part.tokens, places);
#pragma unroll
    for (int i = 0; i < kForwardSlots; ++i) {
      const bool valid = places.valid[i];
      if (!valid && !columns.layout.tiled) continue;  // no such row
      Vector<float, V> result = to_float<T, V>(fine.row[i]);
      if (kFineGate) result = product(result, to_float<T, V>(fine_gate.row[i]));
      if (p.coarse_gate != nullptr) {
        result = sum(result, product(to_float<T, V>(coarse_gate.row[i]), coarse));
      } else if (p.coarse != nullptr) {
        result = sum(result, coarse);
      }
      const Tokens output = rounded<T>(result), zero = {};
      __stcs(reinterpret_cast<Tokens*>(p.output + part.tokens + places.at[i]), valid ? output : zero);
    }
  }
}

template <typename T, int V, bool kFineGate>
__global__ void __launch_bounds__(kThreads, kBlocks<kFineGate>)
    combination_forward(const __grid_constant__ Columns columns, const __grid_constant__ ForwardArgs<T> p) {
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= columns.parts) return;
  const Part part = Part::of<V>(columns, item);
  Vector<float, V> coarse = {};
  if (p.coarse != nullptr) coarse = *reinterpret_cast<const Vector<float, V>*>(p.coarse + part.pooled);
  constexpr int kSlots = kTileVolume / kForwardPieces;
  const int begin = part.piece * kSlots;
  if (part.full) {
    combine<T, V, kFineGate, true>(columns, part, p, coarse, begin, begin + kSlots);
  } else {
    combine<T, V, kFineGate, false>(columns, part, p, coarse, begin, begin + kSlots);
  }
}

// The gradient of the coarse row that the tile's tokens share.
template <typename T, int V, bool kFineGate, bool kFull>
__device__ __forceinline__ Vector<float, V> combine_backward(const Columns& columns, const Part& part,
                                                             const BackwardArgs<T>& p, const Vector<float, V>& coarse) {
  using Tokens = Bits<T, V>;
  const Tokens zero = {};
  Vector<float, V> dcoarse = {};
  const bool gated_dfine = kFineGate && p.dfine != nullptr;
#pragma unroll 1
  for (int begin = 0; begin < kTileVolume; begin += kBackwardSlots) {
    Rows<T, V, kBackwardSlots> doutput, fine, fine_gate, coarse_gate;
    const auto places = Places<kBackwardSlots>::template of<kFull>(columns, part.place, begin);
    doutput.load(p.doutput + part.tokens, places);
    if (kFineGate) fine.load(p.fine + part.tokens, places);
    if (gated_dfine) fine_gate.load(p.fine_gate + part.tokens, places);
    if (p.coarse_gate != nullptr) coarse_gate.load(p.coarse_gate + part.tokens, places);
#pragma unroll
    for (int i = 0; i < kBackwardSlots; ++i) {
      const bool valid = places.valid[i];
      if (!valid && !columns.layout.tiled) continue;  // no such row
      const auto write = [&](T* to, const Tokens& gradient) {
        __stcs(reinterpret_cast<Tokens*>(to + part.tokens + places.at[i]), valid ? gradient : zero);
      };
      const Vector<float, V> gradient = to_float<T, V>(doutput.row[i]);
      if (kFineGate) write(p.dfine_gate, rounded<T>(product(gradient, to_float<T, V>(fine.row[i]))));
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
  return dcoarse;
}

template <typename T, int V, bool kFineGate>
__global__ void __launch_bounds__(kThreads, kBlocks<kFineGate>)
    combination_backward(const __grid_constant__ Columns columns, const __grid_constant__ BackwardArgs<T> p) {
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= columns.parts) return;
  const Part part = Part::of<V>(columns, item);
  Vector<float, V> coarse = {};
  if (p.coarse_gate != nullptr) coarse = *reinterpret_cast<const Vector<float, V>*>(p.coarse + part.pooled);
  const Vector<float, V> dcoarse = part.full ? combine_backward<T, V, kFineGate, true>(columns, part, p, coarse)
                                             : combine_backward<T, V, kFineGate, false>(columns, part, p, coarse);
  if (p.dcoarse != nullptr) *reinterpret_cast<Vector<float, V>*>(p.dcoarse + part.pooled) = dcoarse;
}

}  // namespace

void launch(const CombinationForward& p, const Launch& on) {
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  for_vectors(
      p.dtype, {p.H * p.D}, {p.fine, p.coarse, p.coarse_gate, p.fine_gate, p.output}, [&](auto element, auto vector) {
        using T = decltype(element);
        const Columns columns = columns_of(p, vector(), kForwardPieces);
        const uint32_t blocks = (columns.parts + kThreads - 1) / kThreads;
        if (blocks == 0) return;
        const ForwardArgs<T> args{static_cast<const T*>(p.fine), p.coarse, static_cast<const T*>(p.coarse_gate),
                                  static_cast<const T*>(p.fine_gate), static_cast<T*>(p.output)};
        const auto kernel =
            p.fine_gate != nullptr ? combination_forward<T, vector(), true> : combination_forward<T, vector(), false>;
        kernel<<<blocks, kThreads, 0, on.stream>>>(columns, args);
        check_launch("combination_forward");
      });
}

void launch(const CombinationBackward& p, const Launch& on) {
  VSA_CHECK((p.coarse == nullptr) == (p.dcoarse == nullptr), "coarse and its gradient must come together");
  VSA_CHECK((p.coarse_gate == nullptr) == (p.dcoarse_gate == nullptr), "coarse gate and gradient must come together");
  VSA_CHECK((p.fine_gate == nullptr) == (p.dfine_gate == nullptr), "fine gate and gradient must come together");
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  VSA_CHECK(p.fine != nullptr || p.fine_gate == nullptr, "a fine gate needs the fine output");
  for_vectors(
      p.dtype, {p.H * p.D},
      {p.fine, p.coarse, p.coarse_gate, p.fine_gate, p.doutput, p.dfine, p.dcoarse, p.dcoarse_gate, p.dfine_gate},
      [&](auto element, auto vector) {
        using T = decltype(element);
        const Columns columns = columns_of(p, vector(), 1);
        const uint32_t blocks = (columns.parts + kThreads - 1) / kThreads;
        if (blocks == 0) return;
        const BackwardArgs<T> args{static_cast<const T*>(p.fine),
                                   p.coarse,
                                   static_cast<const T*>(p.coarse_gate),
                                   static_cast<const T*>(p.fine_gate),
                                   static_cast<const T*>(p.doutput),
                                   static_cast<T*>(p.dfine),
                                   p.dcoarse,
                                   static_cast<T*>(p.dcoarse_gate),
                                   static_cast<T*>(p.dfine_gate)};
        const auto kernel =
            p.fine_gate != nullptr ? combination_backward<T, vector(), true> : combination_backward<T, vector(), false>;
        kernel<<<blocks, kThreads, 0, on.stream>>>(columns, args);
        check_launch("combination_backward");
      });
}

}  // namespace vsa::cuda
