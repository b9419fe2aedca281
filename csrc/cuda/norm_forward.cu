#include "cuda/norm.cuh"

namespace vsa::cuda {
namespace {

// Of an SM that is full; gain and shift are read again for every row, from the caches, to leave it its registers.
template <typename Team>
constexpr int kBlocks = Team::kTeams > 1  ? 7
                        : Team::kHeld > 1 ? 2
                                          : 4;

template <typename T>
struct Args {
  RowParts parts;
  int64_t width;
  bool rms;
  float base, eps;  // of the gain
  const T* x;
  const float* gain;
  const float* shift;
  T* output;
  float* mean;
  float* rstd;
};

template <typename T, int V, typename Team>
__global__ void __launch_bounds__(Team::kThreads, kBlocks<Team>) norm_forward_kernel(Args<T> p) {
  constexpr bool kHeld = Team::kHeld > 0;
  constexpr int kSlots = kHeld ? Team::kHeld : 1;
  const int64_t part = int64_t{blockIdx.x} * Team::kTeams + Team::index();
  if (part >= p.parts.count()) return;
  const int64_t parameters = p.parts.group(part) * p.width;
  const float scale = 1.0f / static_cast<float>(p.width);

  const int64_t end = p.parts.end(part);
  for (int64_t row = p.parts.begin(part); row < end; ++row) {
    const T* from = p.x + row * p.width;
    Bits<T, V> held[kSlots];
    const auto read = [&](int i, int64_t column) { held[i] = *reinterpret_cast<const Bits<T, V>*>(from + column); };
    if constexpr (kHeld) Team::template each<V>(p.width, read);
    const auto x_at = [&](int i, int64_t column) {
      if constexpr (!kHeld) read(i, column);
      return to_float<T, V>(held[i]);
    };

    // Where the mean is large beside the deviations, it is not exact enough as a float, but differences from it are:
    // what is left of the mean in them is taken off as well.
    float mean = 0, rest = 0;
    if (!p.rms) {
      float sum[1] = {};
      Team::template each<V>(p.width, [&](int i, int64_t column) {
        const Vector<float, V> x = x_at(i, column);
#pragma unroll
        for (int c = 0; c < V; ++c) sum[0] += x.element[c];
      });
      Team::sum(sum);
      mean = sum[0] * scale;
    }
    float sums[2] = {};
    Team::template each<V>(p.width, [&](int i, int64_t column) {
      const Vector<float, V> x = x_at(i, column);
#pragma unroll
      for (int c = 0; c < V; ++c) {
        const float difference = x.element[c] - mean;
        sums[0] += difference;
        sums[1] += difference * difference;
      }
    });
    Team::sum(sums);
    if (!p.rms) rest = sums[0] * scale;
    const float squares = sums[1] * scale, variance = p.rms ? squares : fmaxf(squares - rest * rest, 0.0f);
    const float rstd = 1.0f / sqrtf((isnan(squares) ? squares : variance) + p.eps);
    Team::template each<V>(p.width, [&](int i, int64_t column) {
      Vector<float, V> result = x_at(i, column);
      Vector<float, V> gain, shift = {};
#pragma unroll
      for (int c = 0; c < V; ++c) gain.element[c] = 1;
      if (p.gain != nullptr) gain = load_floats<V>(p.gain + parameters + column);
      if (p.shift != nullptr) shift = load_floats<V>(p.shift + parameters + column);
#pragma unroll
      for (int c = 0; c < V; ++c) {
        const float normal = (result.element[c] - mean - rest) * rstd;
        result.element[c] = normal * (p.base + gain.element[c]) + shift.element[c];
      }
      store<T, V>(p.output + row * p.width + column, result);
    });
    if (Team::lane() == 0) {
      p.rstd[row] = rstd;
      if (!p.rms) p.mean[row] = mean + rest;
    }
  }
}

}  // namespace

void launch(const NormForward& p, const Launch& on) {
  if (p.rows * p.width == 0) return;
  const bool wide = aligned_to_16({p.x, p.gain, p.shift, p.output});
  for_teams(p.dtype, wide, p.width, [&](auto element, auto vector, auto team) {
    using T = decltype(element);
    using Team = decltype(team);
    const RowParts parts(p.rows, p.groups, int64_t{on.sm_count} * kBlocks<Team> * Team::kTeams, 1);
    const float base = p.one_plus && p.gain != nullptr ? 1.0f : 0.0f;
    const Args<T> args{
        parts,  p.width, p.rms, base, p.eps, static_cast<const T*>(p.x), p.gain, p.shift, static_cast<T*>(p.output),
        p.mean, p.rstd};
    norm_forward_kernel<T, vector(), Team>
        <<<blocks_of(parts.count(), Team::kTeams), Team::kThreads, 0, on.stream()>>>(args);
    check_launch("norm_forward_kernel");
  });
}

}  // namespace vsa::cuda
