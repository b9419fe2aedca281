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
// each(use) calls use(quad, i) in order, for all lanes alike.
template <int kQuads>
struct RegisterRanks {
  uint4 quads[kQuads];

  template <class F>
  __device__ __forceinline__ void each(const F& use) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) use(quads[i], i);
  }
};

struct MemoryRanks {
  uint4* quads;  // of this lane, 32 apart
  int count;

  template <class F>
  __device__ __forceinline__ void each(const F& use) {
#pragma unroll 2
    for (int i = 0; i < count; ++i) use(quads[32 * i], i);
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

// Ranks from the scores, of which load(quad) gives four. Returns the first guess for the K-th largest, and in `step`
// what an element is worth.
template <class Ranks, class Load>
__device__ __forceinline__ float rank_row(Ranks& ranks, const Candidates& candidates, const Guess& guess, int lane,
                                          float& step, const Load& load) {
  float sum = 0, squares = 0;
  ranks.each([&](uint4& quad, int i) {
    const int j = 128 * i + 4 * lane;
    float4 four = {};
    if (j < candidates.end) four = load(32 * i + lane);
    const float x[4] = {four.x, four.y, four.z, four.w};
    uint32_t rank[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const bool candidate = j + e >= candidates.first && j + e < candidates.end;
      const float value = candidate ? x[e] : 0.0f;
      rank[e] = candidate ? rank_of(value) : kAbsent;
      rank[e] = j + e == candidates.forced ? kForced : rank[e];
      sum += value;
      squares = fmaf(value, value, squares);
    }
    quad = {rank[0], rank[1], rank[2], rank[3]};
  });
  const float inverse = 1.0f / static_cast<float>(candidates.end - candidates.first);
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

// How many of the flags of lower lanes and of all lanes are set; a lane has 0 to 4.
__device__ __forceinline__ int sum_before(int flags, int lane, int& total) {
  int sum = flags;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(kWarp, sum, distance);
    if (lane >= distance) sum += other;
  }
  total = __shfl_sync(kWarp, sum, 31);
  return sum - flags;
}

// Writes the kept key tiles in ascending order.
template <class Ranks>
__device__ __forceinline__ void write_list(Ranks& ranks, Threshold threshold, int lane, int32_t* list) {
  ranks.each([&](const uint4& four, int i) {
    const uint32_t rank[4] = {four.x, four.y, four.z, four.w};
    bool kept[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) kept[e] = rank[e] > threshold.above;
    int total;
    if (threshold.ties > 0) {  // the same for all lanes
      int ties = 0;
#pragma unroll
      for (int e = 0; e < 4; ++e) ties += rank[e] == threshold.above;
      int left = threshold.ties - sum_before(ties, lane, total);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const bool tie = rank[e] == threshold.above;
        kept[e] = kept[e] || (tie && left > 0);
        left -= tie;
      }
      threshold.ties -= total;
    }
    int32_t* to = list + sum_before(kept[0] + kept[1] + kept[2] + kept[3], lane, total);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (kept[e]) *to++ = 128 * i + 4 * lane + e;
    }
    list += total;
  });
}

}  // namespace vsa::cuda::selection
