#pragma once

#include <cstdint>

// The largest scores of one row, exactly, by one warp.
//
// Scores become integers in their order ("ranks"). The K-th largest is then found by counting how many ranks reach a
// guess: the bracket around it shrinks with every count, and most searches end early, at a guess that exactly K reach.
// Where the guess comes from changes nothing but the time. The first supposes normally distributed scores, the next few
// correct it by the density of that distribution, and after those the bracket is halved.
namespace vsa::cuda::selection {

constexpr unsigned kWarp = 0xffffffffu;
constexpr uint32_t kAbsent = 0;  // no candidate
constexpr uint32_t kNan = 1;     // the lowest candidate; -inf is 0x007fffff
constexpr uint32_t kForced = 0xffffffffu;
constexpr int kGuesses = 6;

// -0 becomes +0 first.
__device__ __forceinline__ uint32_t rank_of(float score) {
  const int32_t bits = __float_as_int(__fadd_rn(score, 0.0f));
  const uint32_t rank = static_cast<uint32_t>(bits ^ (bits >> 31 | static_cast<int32_t>(0x80000000)));
  return score == score ? rank : kNan;
}

// How the K best are looked for among n candidates, if they were normally distributed.
struct Guess {
  float deviations;   // of the K-th largest from the mean
  float per_element;  // deviations between neighbours in order there
};

// The ranks of a row, four in a quad: quad i of a lane has those of key tiles 128 i + 4 lane and the three after it.
// each(use) calls use(quad, i) in order, for all lanes alike; each_loaded(load, use) sets a quad to load(i) first.
template <int kQuads>
struct RegisterRanks {
  uint4 quads[kQuads];

  // Loads go out eight by eight before their first is used: else every quad would wait for its own.
  template <class Load, class F>
  __device__ __forceinline__ void each_loaded(const Load& load, const F& use) {
#pragma unroll
    for (int first = 0; first < kQuads; first += 8) {
#pragma unroll
      for (int i = first; i < kQuads && i < first + 8; ++i) quads[i] = load(i);
#pragma unroll
      for (int i = first; i < kQuads && i < first + 8; ++i) use(quads[i], i);
    }
  }

  template <class F>
  __device__ __forceinline__ void each(const F& use) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) use(quads[i], i);
  }

  // The same four by four: use(an array of four quads, the number of the first).
  template <class F>
  __device__ __forceinline__ void groups(const F& use) const {
#pragma unroll
    for (int first = 0; first < kQuads; first += 4) {
      uint4 group[4] = {};  // no candidates
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i < kQuads) group[i] = quads[first + i];
      }
      use(group, first);
    }
  }
};

struct MemoryRanks {
  uint4* quads;  // of this lane, 32 apart
  int count;

  template <class Load, class F>
  __device__ __forceinline__ void each_loaded(const Load& load, const F& use) {
#pragma unroll 2
    for (int i = 0; i < count; ++i) {
      uint4 quad = load(i);
      use(quad, i);
      quads[32 * i] = quad;
    }
  }

  template <class F>
  __device__ __forceinline__ void each(const F& use) {
#pragma unroll 2
    for (int i = 0; i < count; ++i) use(quads[32 * i], i);
  }

  template <class F>
  __device__ __forceinline__ void groups(const F& use) const {
#pragma unroll 1
    for (int first = 0; first < count; first += 4) {
      uint4 group[4] = {};  // no candidates
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i < count) group[i] = quads[32 * (first + i)];
      }
      use(group, first);
    }
  }
};

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) x += __shfl_xor_sync(kWarp, x, distance);
  return x;
}

struct Candidates {
  int first, end;  // key tiles
  int forced;      // above all others, or -1
};

// Ranks from the scores, of which load(i) gives the bits of quad i. Returns the first guess for the K-th largest, and
// in `step` what an element is worth.
template <class Ranks, class Load>
__device__ __forceinline__ float rank_row(Ranks& ranks, const Candidates& candidates, const Guess& guess, int lane,
                                          float& step, const Load& load) {
  const auto count = static_cast<uint32_t>(candidates.end - candidates.first);
  float sum = 0, squares = 0;
  ranks.each_loaded(load, [&](uint4& quad, int i) {
    const int j = 128 * i + 4 * lane;
    const float x[4] = {__uint_as_float(quad.x), __uint_as_float(quad.y), __uint_as_float(quad.z),
                        __uint_as_float(quad.w)};
    uint32_t rank[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool candidate = static_cast<uint32_t>(j + e - candidates.first) < count;
      const float value = candidate ? x[e] : 0.0f;
      rank[e] = candidate ? rank_of(value) : kAbsent;
      sum += value;
      squares = fmaf(value, value, squares);
    }
    if (candidates.forced >= 0) {  // the same for all lanes
#pragma unroll
      for (int e = 0; e < 4; ++e) rank[e] = j + e == candidates.forced ? kForced : rank[e];
    }
    quad = {rank[0], rank[1], rank[2], rank[3]};
  });
  const float inverse = 1.0f / static_cast<float>(count);
  const float mean = warp_sum(sum) * inverse;
  const float deviation = sqrtf(fmaxf(fmaf(-mean, mean, warp_sum(squares) * inverse), 0.0f));
  step = deviation * guess.per_element;
  return fmaf(deviation, guess.deviations, mean);
}

template <class Ranks>
__device__ __forceinline__ int count_reaching(Ranks& ranks, uint32_t threshold) {
  int count = 0;
  ranks.each([&](const uint4& rank, int) {
    count += rank.x >= threshold;
    count += rank.y >= threshold;
    count += rank.z >= threshold;
    count += rank.w >= threshold;
  });
  return __reduce_add_sync(kWarp, count);
}

// Kept are the ranks above `above`, and of those equal to it the first `ties`.
struct Threshold {
  uint32_t above;
  int ties;
};

template <class Ranks>
__device__ __forceinline__ Threshold find_threshold(Ranks& ranks, int candidates, int keep, bool forced, float guess,
                                                    float step) {
  if (keep == candidates) return {kAbsent, 0};
  // Always: at least `keep` ranks reach low, fewer than `keep` (above_high) reach high.
  uint32_t low = kNan, high = kForced;
  int above_high = forced ? 1 : 0;
  if (above_high == keep) return {kForced - 1, 0};
  for (int tries = 0; high - low > 1; ++tries) {
    const uint32_t rank = rank_of(guess);
    const bool usable = tries < kGuesses && rank > low && rank < high;
    const uint32_t threshold = usable ? rank : low + (high - low) / 2;
    const int count = count_reaching(ranks, threshold);
    if (count == keep) return {threshold - 1, 0};
    if (count > keep) {
      low = threshold;
    } else {
      high = threshold, above_high = count;
    }
    guess = fmaf(static_cast<float>(count - keep), step, guess);
  }
  return {low, keep - above_high};
}

// Sums over lower lanes and this one. Four sums of up to 255 may share a word.
__device__ __forceinline__ uint32_t warp_scan(uint32_t x, int lane) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint32_t other = __shfl_up_sync(kWarp, x, distance);
    if (lane >= distance) x += other;
  }
  return x;
}

// Makes the first `ties` of the ranks that equal threshold.above forced ones.
template <class Ranks>
__device__ __forceinline__ void force_ties(Ranks& ranks, Threshold threshold, int lane) {
  uint32_t left = threshold.ties;
  ranks.each([&](uint4& quad, int) {
    uint32_t rank[4] = {quad.x, quad.y, quad.z, quad.w};
    uint32_t ties = 0;
#pragma unroll
    for (int e = 0; e < 4; ++e) ties += rank[e] == threshold.above;
    const uint32_t sum = warp_scan(ties, lane), total = __shfl_sync(kWarp, sum, 31);
    uint32_t before = sum - ties;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool tie = rank[e] == threshold.above;
      rank[e] = tie && before < left ? kForced : rank[e];
      before += tie;
    }
    quad = {rank[0], rank[1], rank[2], rank[3]};
    left -= min(left, total);
  });
}

// Writes the key tiles whose ranks are above `above`, in ascending order.
template <class Ranks>
__device__ __forceinline__ void write_list(Ranks& ranks, uint32_t above, int lane, int32_t* list) {
  ranks.groups([&](const uint4(&quads)[4], int first) {
    uint32_t kept = 0;  // a byte for every quad: at most 128 of all lanes
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t count = (quads[i].x > above) + (quads[i].y > above) + (quads[i].z > above) + (quads[i].w > above);
      kept += count << 8 * i;
    }
    const uint32_t sum = warp_scan(kept, lane), total = __shfl_sync(kWarp, sum, 31), before = sum - kept;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int32_t* to = list + (before >> 8 * i & 255);
      const int32_t j = 128 * (first + i) + 4 * lane;
      if (quads[i].x > above) *to++ = j;
      if (quads[i].y > above) *to++ = j + 1;
      if (quads[i].z > above) *to++ = j + 2;
      if (quads[i].w > above) *to++ = j + 3;
      list += total >> 8 * i & 255;
    }
  });
}

}  // namespace vsa::cuda::selection
