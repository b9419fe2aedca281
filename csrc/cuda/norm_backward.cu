#include "cuda/group_sums.cuh"
#include "cuda/norm.cuh"

// dx = rstd (g - mean(g) - n mean(g n)) with g = doutput * gain and n the normalised row; dgain and dshift are summed
// over the rows of a block in registers, then over the blocks of a group by group_sums.
namespace vsa::cuda {
namespace {

template <typename T>
struct Args {
  RowParts parts;
  int64_t width;
  bool rms;
  float base;  // of the gain
  const T* x;
  const float* gain;
  const float* mean;
  const float* rstd;
  const T* doutput;
  T* dx;
  float* dgain;   // [groups, parts, width], or null
  float* dshift;  // or null
};

// Adds up what the teams of a block have summed, team by team, and writes it.
template <int V, typename Team, int kSlots>
__device__ __forceinline__ void write_sums(float* to, int64_t width, Vector<float, V> (&sums)[kSlots]) {
  __shared__ Vector<float, V> others[Team::kTeams > 1 ? Team::kSize * kSlots : 1];
#pragma unroll 1
  for (int team = 1; team < Team::kTeams; ++team) {
    __syncthreads();
    if (Team::index() == team) {
#pragma unroll
      for (int i = 0; i < kSlots; ++i) others[i * Team::kSize + Team::lane()] = sums[i];
    }
    __syncthreads();
    if (Team::index() != 0) continue;
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
#pragma unroll
      for (int c = 0; c < V; ++c) sums[i].element[c] += others[i * Team::kSize + Team::lane()].element[c];
    }
  }
  __syncthreads();
  if (Team::index() != 0) return;
  Team::template each<V>(width, [&](int i, int64_t column) { store_floats<V>(to + column, sums[i]); });
}

template <typename T, int V, typename Team>
__global__ void __launch_bounds__(Team::kThreads, Team::kBlocksPerSm) norm_backward_kernel(Args<T> p) {
  constexpr bool kHeld = Team::kHeld > 0;
  constexpr int kSlots = kHeld ? Team::kHeld : 1;
  const int64_t part = blockIdx.x;
  const int64_t parameters = p.parts.group(part) * p.width;
  const float scale = 1.0f / static_cast<float>(p.width);
  Vector<float, V> dgain[kSlots] = {}, dshift[kSlots] = {};
  // From the caches, twice a row: the registers are for the sums and the next row.
  const auto gain_at = [&](int64_t column) {
    Vector<float, V> gain;
#pragma unroll
    for (int c = 0; c < V; ++c) gain.element[c] = 1;
    if (p.gain != nullptr) gain = load_floats<V>(p.gain + parameters + column);
#pragma unroll
    for (int c = 0; c < V; ++c) gain.element[c] += p.base;
    return gain;
  };

  const int64_t begin = p.parts.begin(part), end = p.parts.end(part);
  Bits<T, V> held_x[kSlots], held_doutput[kSlots], next_x[kSlots], next_doutput[kSlots];
  const auto read = [&](int64_t row, Bits<T, V>(&x)[kSlots], Bits<T, V>(&doutput)[kSlots]) {
    if (row >= end) return;
    Team::template each<V>(p.width, [&](int i, int64_t column) {
      x[i] = *reinterpret_cast<const Bits<T, V>*>(p.x + row * p.width + column);
      doutput[i] = *reinterpret_cast<const Bits<T, V>*>(p.doutput + row * p.width + column);
    });
  };
  if constexpr (kHeld) read(begin + Team::index(), next_x, next_doutput);
  for (int64_t row = begin + Team::index(); row < end; row += Team::kTeams) {
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kSlots; ++i) held_x[i] = next_x[i], held_doutput[i] = next_doutput[i];
      read(row + Team::kTeams, next_x, next_doutput);
    }
    const auto read_again = [&](int64_t column) {
      held_x[0] = *reinterpret_cast<const Bits<T, V>*>(p.x + row * p.width + column);
      held_doutput[0] = *reinterpret_cast<const Bits<T, V>*>(p.doutput + row * p.width + column);
    };
    const float rstd = p.rstd[row], mean = p.rms ? 0.0f : p.mean[row];

    // Of differences from the mean, of g, of their products. What is left of the mean in the differences, the first
    // sum, is taken off as in the forward.
    float sums[3] = {};
    Team::template each<V>(p.width, [&](int i, int64_t column) {
      if constexpr (!kHeld) read_again(column);
      const Vector<float, V> x = to_float<T, V>(held_x[i]), doutput = to_float<T, V>(held_doutput[i]);
      const Vector<float, V> gain = gain_at(column);
#pragma unroll
      for (int c = 0; c < V; ++c) {
        const float difference = x.element[c] - mean, g = doutput.element[c] * gain.element[c];
        sums[0] += difference;
        sums[1] += g;
        sums[2] += g * difference;
      }
    });
    Team::sum(sums);
    const float rest = p.rms ? 0.0f : sums[0] * scale, average = p.rms ? 0.0f : sums[1] * scale;
    const float along = (sums[2] - rest * sums[1]) * rstd * scale;

    Team::template each<V>(p.width, [&](int i, int64_t column) {
      if constexpr (!kHeld) read_again(column);
      const Vector<float, V> x = to_float<T, V>(held_x[i]), doutput = to_float<T, V>(held_doutput[i]);
      const Vector<float, V> gain = gain_at(column);
      Vector<float, V> dx;
#pragma unroll
      for (int c = 0; c < V; ++c) {
        const float normal = (x.element[c] - mean - rest) * rstd, g = doutput.element[c] * gain.element[c];
        dx.element[c] = rstd * (g - average - normal * along);
        const float gain_part = doutput.element[c] * normal, shift_part = doutput.element[c];
        if constexpr (kHeld) {
          dgain[i].element[c] += gain_part;
          dshift[i].element[c] += shift_part;
        } else {  // no room in registers: the sums are in memory, where this thread alone sees them
          const int64_t at = part * p.width + column + c;
          if (p.dgain != nullptr) p.dgain[at] = (row == begin ? 0.0f : p.dgain[at]) + gain_part;
          if (p.dshift != nullptr) p.dshift[at] = (row == begin ? 0.0f : p.dshift[at]) + shift_part;
        }
      }
      store<T, V>(p.dx + row * p.width + column, dx);
    });
  }
  if constexpr (kHeld) {
    if (p.dgain != nullptr) write_sums<V, Team>(p.dgain + part * p.width, p.width, dgain);
    if (p.dshift != nullptr) write_sums<V, Team>(p.dshift + part * p.width, p.width, dshift);
  }
}

}  // namespace

void launch(const NormBackward& p, const Launch& on) {
  if (p.groups * p.width == 0) return;
  const bool wide = aligned_to_16({p.x, p.gain, p.doutput, p.dx, p.dgain, p.dshift});
  for_teams(p.dtype, wide, p.width, [&](auto element, auto vector, auto team) {
    using T = decltype(element);
    using Team = decltype(team);
    const RowParts parts(p.rows, p.groups, int64_t{on.sm_count} * Team::kBlocksPerSm, Team::kTeams);
    const bool direct = parts.parts == 1;
    const auto partial = [&](float* sums) {
      return sums == nullptr || direct ? sums : on.scratch_of<float>(std::max<int64_t>(parts.count(), 1) * p.width);
    };
    float* const dgain = partial(p.dgain);
    float* const dshift = partial(p.dshift);
    const float base = p.one_plus && p.gain != nullptr ? 1.0f : 0.0f;
    const Args<T> args{parts,
                       p.width,
                       p.rms,
                       base,
                       static_cast<const T*>(p.x),
                       p.gain,
                       p.mean,
                       p.rstd,
                       static_cast<const T*>(p.doutput),
                       static_cast<T*>(p.dx),
                       dgain,
                       dshift};
    if (parts.count() > 0) {
      norm_backward_kernel<T, vector(), Team><<<blocks_of(parts.count(), 1), Team::kThreads, 0, on.stream()>>>(args);
      check_launch("norm_backward_kernel");
    }
    if (p.dgain != nullptr && !direct) launch_group_sums(dgain, parts, p.width, p.dgain, on);
    if (p.dshift != nullptr && !direct) launch_group_sums(dshift, parts, p.width, p.dshift, on);
  });
}

}  // namespace vsa::cuda
