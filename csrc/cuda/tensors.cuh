#pragma once

#include <cstdint>
#include <vector>

#include "cuda/vectors.cuh"

// Many fp32 tensors of different lengths as one row of chunks, so that a launch serves dozens of parameters, small and
// large. Their addresses travel as arguments of the kernel: nothing is copied, and a recorded launch keeps them.
namespace vsa::cuda {

inline constexpr int64_t kChunkElements = 16384;

inline int64_t chunks_of(int64_t count) {
  return (count + kChunkElements - 1) / kChunkElements;
}

// What a block works on.
struct Place {
  int tensor;
  bool wide;  // whether the addresses allow accesses of 16 bytes
  int64_t begin, end;
};

// Up to kMost tensors; `memories` addresses of each: 4 KiB of arguments at most.
template <int memories>
struct Tensors {
  static constexpr int kMost = (4096 - 256) / (8 * memories + 8 + 4 + 1);

  float* memory[memories][kMost];
  int64_t count[kMost];
  uint32_t first[kMost];  // chunk of each
  bool wide[kMost];
  int tensors = 0;

  int64_t chunks() const { return tensors == 0 ? 0 : first[tensors - 1] + chunks_of(count[tensors - 1]); }

  __device__ __forceinline__ Place locate(uint32_t chunk) const {
    int low = 0, high = tensors;  // the last tensor that begins at or before the chunk: none is empty
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (first[middle] <= chunk ? low : high) = middle;
    }
    const int64_t begin = int64_t{chunk - first[low]} * kChunkElements, end = begin + kChunkElements;
    return {low, wide[low], begin, end < count[low] ? end : count[low]};
  }
};

// Calls go(tensors, chunks before them) for as many launches as it takes; addresses(i, to) tells those of tensor i.
template <int memories, typename Addresses, typename Go>
void for_tensors(const std::vector<int64_t>& counts, const Addresses& addresses, const Go& go) {
  Tensors<memories> some;
  int64_t before = 0;
  const auto flush = [&] {
    if (some.tensors == 0) return;
    go(some, before);
    before += some.chunks();
    some.tensors = 0;
  };
  for (size_t i = 0; i < counts.size(); ++i) {
    if (counts[i] == 0) continue;
    const int64_t first = some.chunks();
    if (some.tensors == Tensors<memories>::kMost || first + chunks_of(counts[i]) > INT32_MAX) flush();
    VSA_CHECK(chunks_of(counts[i]) <= INT32_MAX, "too large a problem for one launch");
    const int at = some.tensors;
    some.first[at] = static_cast<uint32_t>(some.chunks());
    some.count[at] = counts[i];
    float* to[memories];
    addresses(i, to);
    some.wide[at] = true;
    for (int m = 0; m < memories; ++m) {
      some.memory[m][at] = to[m];
      some.wide[at] = some.wide[at] && aligned_to_16({to[m]});
    }
    ++some.tensors;
  }
  flush();
}

}  // namespace vsa::cuda
