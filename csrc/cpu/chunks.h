#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/parallel.h"

// Long rows of elements cut into work items, and those into blocks that fit into a buffer on the stack.
namespace vsa::cpu {

inline constexpr int64_t kChunkElements = 16384;  // of a work item: some microseconds
inline constexpr int64_t kBlockElements = 1024;   // of a buffer: 4 KiB of floats

constexpr int64_t chunks_of(int64_t count) {
  return (count + kChunkElements - 1) / kChunkElements;
}

// body(begin, count) for the blocks of a chunk, in their order.
template <class Body>
void for_blocks_of(int64_t chunk, int64_t count, const Body& body) {
  const int64_t end = std::min((chunk + 1) * kChunkElements, count);
  for (int64_t begin = chunk * kChunkElements; begin < end; begin += kBlockElements) {
    body(begin, std::min(kBlockElements, end - begin));
  }
}

// body(begin, count) for all blocks of [0, count), chunks on the pool's threads.
template <class Body>
void for_blocks(int64_t count, const Body& body) {
  parallel_for(chunks_of(count), [&](int64_t chunk) { for_blocks_of(chunk, count, body); });
}

// The sum of term(i), float64. Eight running sums keep the processor's adders busy; their order is fixed by i alone,
// so the bits are the same whatever the number of threads and the instruction set.
template <class Term>
double sum_terms(int64_t count, const Term& term) {
  constexpr int kSums = 8;
  double sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= count; i += kSums) {
    for (int lane = 0; lane < kSums; ++lane) sums[lane] += term(i + lane);
  }
  for (int lane = 0; i < count; ++i, ++lane) sums[lane] += term(i);
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace vsa::cpu
