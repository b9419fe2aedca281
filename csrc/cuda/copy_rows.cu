#include "cuda/check.h"
#include "cuda/fast_division.h"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

// Copies rows as they are, in the widest accesses that all of them allow. Bound by memory.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;

template <typename V>
__global__ void __launch_bounds__(kThreads)
    copy_rows_kernel(const char* x, char* output, int64_t x_stride, int64_t output_stride, uint32_t items,
                     FastDivision vectors) {
  const uint32_t item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= items) return;
  const uint32_t row = vectors(item), column = item - row * vectors.divisor;
  const V* from = reinterpret_cast<const V*>(x + row * x_stride);
  reinterpret_cast<V*>(output + row * output_stride)[column] = from[column];
}

// Pieces of at most kMost accesses each, so that places in them are 32-bit numbers.
template <typename V>
void copy(const CopyRows& p, const Launch& on) {
  constexpr int64_t kMost = int64_t{1} << 30;
  const int64_t size = static_cast<int64_t>(sizeof(V)), vectors = p.bytes / size;
  const int64_t width = std::min(vectors, kMost), height = std::max<int64_t>(kMost / width, 1);
  for (int64_t row = 0; row < p.rows; row += height) {
    for (int64_t column = 0; column < vectors; column += width) {
      const int64_t columns = std::min(width, vectors - column), items = std::min(height, p.rows - row) * columns;
      const char* x = static_cast<const char*>(p.x) + p.x_offset + row * p.x_stride + column * size;
      char* output = static_cast<char*>(p.output) + p.output_offset + row * p.output_stride + column * size;
      copy_rows_kernel<V><<<blocks_of(items, kThreads), kThreads, 0, on.stream()>>>(
          x, output, p.x_stride, p.output_stride, static_cast<uint32_t>(items),
          FastDivision(static_cast<uint32_t>(columns)));
      check_launch("copy_rows_kernel");
    }
  }
}

}  // namespace

void launch(const CopyRows& p, const Launch& on) {
  if (p.rows == 0 || p.bytes == 0) return;
  const auto alignment =
      static_cast<uint64_t>(reinterpret_cast<uintptr_t>(p.x) + static_cast<uintptr_t>(p.x_offset)) |
      static_cast<uint64_t>(reinterpret_cast<uintptr_t>(p.output) + static_cast<uintptr_t>(p.output_offset)) |
      static_cast<uint64_t>(p.bytes) | (p.rows > 1 ? static_cast<uint64_t>(p.x_stride | p.output_stride) : 0);
  if (alignment % 16 == 0) return copy<uint4>(p, on);
  if (alignment % 8 == 0) return copy<uint2>(p, on);
  if (alignment % 4 == 0) return copy<uint32_t>(p, on);
  if (alignment % 2 == 0) return copy<uint16_t>(p, on);
  copy<uint8_t>(p, on);
}

}  // namespace vsa::cuda
