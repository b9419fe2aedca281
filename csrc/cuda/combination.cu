#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/launch.h"
#include "cuda/tile_columns.cuh"

// The coarse row that all tokens of a tile share stays in registers, and so does the sum of its gradient. Bound by
// memory. Products and sums are rounded one by one, never fused, so that the CPU gives the same bits.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 64;
constexpr int kDeltaThreads = 256;
constexpr int kForwardSlots = 4;   // of up to three loads each
constexpr int kBackwardSlots = 4;  // of up to four
// Threads that share a tile's slots. Only the backward has a sum over them, in the order of the CPU's.
constexpr int kForwardPieces = 4;
// At least so many blocks an SM: the less a thread has in flight, the more there are of them.
template <bool kFineGate>
constexpr int kForwardBlocks = kFineGate ? 8 : 10;
template <bool kFineGate, bool kDelta>
constexpr int kBackwardBlocks = (kFineGate ? 8 : 10) - (kDelta ? 2 : 0);

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
  float* delta;          // [B, H, rows], or null
  uint32_t H;
  FastDivision by_D;
  int32_t lanes;  // that share a row of a head
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
__global__ void __launch_bounds__(kThreads, kForwardBlocks<kFineGate>)
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

// What a thread adds to delta of the rows of a few slots, and once that is there, delta itself.
template <typename T, int V>
struct Delta {
  float sum[kBackwardSlots];  // 0 at first

  __device__ __forceinline__ void add(int i, const Bits<T, V>& fine, const Bits<T, V>& dfine) {
    const Vector<float, V> x = to_float<T, V>(fine), y = to_float<T, V>(dfine);
#pragma unroll
    for (int c = 0; c < V; ++c) sum[i] = fmaf(x.element[c], y.element[c], sum[i]);
  }
  // Slot begin + i is written by the i-th of the lanes that share its row.
  __device__ __forceinline__ void finish(const Columns& columns, const Part& part, const BackwardArgs<T>& p,
                                         int begin) {
    static_assert(kBackwardSlots == 4, "sums are chosen by two bits of the lane");
    const int lane = threadIdx.x % 32, first = lane & -p.lanes;
    const unsigned together = ~0u >> (32 - p.lanes) << first;
    for (int distance = p.lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
      for (int i = 0; i < kBackwardSlots; ++i) sum[i] += __shfl_xor_sync(together, sum[i], distance);
    }
    const int i = lane - first, slot = begin + i;
    if (i >= kBackwardSlots || (!columns.layout.tiled && !part.place.valid(slot))) return;
    const float low = i & 1 ? sum[1] : sum[0], high = i & 1 ? sum[3] : sum[2];
    const uint32_t head = part.b * p.H + p.by_D(part.column);
    p.delta[static_cast<int64_t>(head) * columns.layout.rows + part.place.row(slot)] = i & 2 ? high : low;
  }
};

// The gradient of the coarse row that the tile's tokens share.
template <typename T, int V, bool kFineGate, bool kDelta, bool kFull>
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
    Delta<T, V> delta;
    doutput.load(p.doutput + part.tokens, places);
    if (kFineGate || kDelta) fine.load(p.fine + part.tokens, places);
    if (gated_dfine) fine_gate.load(p.fine_gate + part.tokens, places);
    if (p.coarse_gate != nullptr) coarse_gate.load(p.coarse_gate + part.tokens, places);
#pragma unroll
    for (int i = 0; i < kBackwardSlots; ++i) {
      const bool valid = places.valid[i];
      if (kDelta) delta.sum[i] = 0;
      if (!valid && !columns.layout.tiled) continue;  // no such row
      const auto write = [&](T* to, const Tokens& gradient) {
        __stcs(reinterpret_cast<Tokens*>(to + part.tokens + places.at[i]), valid ? gradient : zero);
      };
      const Vector<float, V> gradient = to_float<T, V>(doutput.row[i]);
      if (kFineGate) write(p.dfine_gate, rounded<T>(product(gradient, to_float<T, V>(fine.row[i]))));
      Tokens dfine = doutput.row[i];
      if (gated_dfine) dfine = rounded<T>(product(gradient, to_float<T, V>(fine_gate.row[i])));
      if (p.dfine != nullptr) write(p.dfine, dfine);
      if (kDelta) delta.add(i, fine.row[i], dfine);
      if (p.coarse_gate != nullptr) {
        write(p.dcoarse_gate, rounded<T>(product(gradient, coarse)));
        dcoarse = sum(dcoarse, product(gradient, to_float<T, V>(coarse_gate.row[i])));
      } else if (p.dcoarse != nullptr) {
        dcoarse = sum(dcoarse, gradient);
      }
    }
    if (kDelta) delta.finish(columns, part, p, begin);
  }
  return dcoarse;
}

template <typename T, int V, bool kFineGate, bool kDelta>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks<kFineGate, kDelta>)
    combination_backward(const __grid_constant__ Columns columns, const __grid_constant__ BackwardArgs<T> p) {
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= columns.parts) return;
  const Part part = Part::of<V>(columns, item);
  Vector<float, V> coarse = {};
  if (p.coarse_gate != nullptr) coarse = *reinterpret_cast<const Vector<float, V>*>(p.coarse + part.pooled);
  const Vector<float, V> dcoarse = part.full
                                       ? combine_backward<T, V, kFineGate, kDelta, true>(columns, part, p, coarse)
                                       : combine_backward<T, V, kFineGate, kDelta, false>(columns, part, p, coarse);
  if (p.dcoarse != nullptr) *reinterpret_cast<Vector<float, V>*>(p.dcoarse + part.pooled) = dcoarse;
}

// Delta where no 8, 16 or 32 lanes share a row in vectors: a warp a row, as it lies in memory.
template <typename T>
__global__ void __launch_bounds__(kDeltaThreads)
    combination_delta(const __grid_constant__ TileLayout layout, int64_t rows, int32_t H, int32_t D, const T* fine,
                      const T* dfine, float* delta) {
  const int64_t unit = (blockIdx.x * int64_t{kDeltaThreads} + threadIdx.x) / 32;  // [B, rows, H]
  if (unit >= rows) return;
  const int64_t batch_row = unit / H, b = batch_row / layout.rows;
  const auto row = static_cast<int32_t>(batch_row - b * layout.rows);
  float sum = 0;
  if (!layout.tiled || layout.place(row / kTileVolume).valid(row % kTileVolume)) {
    for (int32_t c = threadIdx.x % 32; c < D; c += 32) {
      sum = fmaf(static_cast<float>(fine[unit * D + c]), static_cast<float>(dfine[unit * D + c]), sum);
    }
  }
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) sum += __shfl_xor_sync(~0u, sum, distance);
  if (threadIdx.x % 32 == 0) delta[(b * H + unit - batch_row * H) * layout.rows + row] = sum;
}

// Lanes that share a row of a head where shuffles can make sums over it, else 0.
int32_t lanes_of(int64_t D, int V) {
  return V > 1 && (D == 8 * V || D == 16 * V || D == 32 * V) ? static_cast<int32_t>(D / V) : 0;
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
        launch_kernel(kernel, "combination_forward", on, blocks, kThreads, 0, columns, args);
      });
}

void launch(const CombinationBackward& p, const Launch& on) {
  VSA_CHECK((p.coarse == nullptr) == (p.dcoarse == nullptr), "coarse and its gradient must come together");
  VSA_CHECK((p.coarse_gate == nullptr) == (p.dcoarse_gate == nullptr), "coarse gate and gradient must come together");
  VSA_CHECK((p.fine_gate == nullptr) == (p.dfine_gate == nullptr), "fine gate and gradient must come together");
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  VSA_CHECK(p.fine != nullptr || p.fine_gate == nullptr, "a fine gate needs the fine output");
  VSA_CHECK(p.delta == nullptr || (p.fine != nullptr && (p.fine_gate == nullptr || p.dfine != nullptr)),
            "delta needs the fine output and, beside a fine gate, its gradient");
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
                                   static_cast<T*>(p.dfine_gate),
                                   p.delta,
                                   static_cast<uint32_t>(p.H),
                                   FastDivision(static_cast<int32_t>(p.D)),
                                   lanes_of(p.D, vector())};
        const auto kernel_of = [&](auto fine_gate) {
          constexpr bool kFineGate = fine_gate();
          return args.delta != nullptr && args.lanes > 0 ? combination_backward<T, vector(), kFineGate, (vector() > 1)>
                                                         : combination_backward<T, vector(), kFineGate, false>;
        };
        const auto kernel = p.fine_gate != nullptr ? kernel_of(std::true_type()) : kernel_of(std::false_type());
        launch_kernel(kernel, "combination_backward", on, blocks, kThreads, 0, columns, args);
        if (args.delta == nullptr || args.lanes > 0) return;
        const int64_t rows = p.B * columns.layout.rows * p.H;
        launch_kernel(combination_delta<T>, "combination_delta", on, blocks_of(rows, kDeltaThreads / 32), kDeltaThreads,
                      0, columns.layout, rows, static_cast<int32_t>(p.H), static_cast<int32_t>(p.D), args.fine,
                      p.fine_gate != nullptr ? static_cast<const T*>(args.dfine) : args.doutput, args.delta);
      });
}

}  // namespace vsa::cuda
