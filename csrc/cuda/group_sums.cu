#include "cuda/check.h"
#include "cuda/group_sums.cuh"
#include "cuda/vectors.cuh"

namespace vsa::cuda {
namespace {

constexpr int kColumns = 32;
constexpr int kLanes = 16;  // of a column: each adds every 16th part, then their sums are added in order

__global__ void __launch_bounds__(kColumns* kLanes)
    group_sums_kernel(const float* partial, int64_t parts, int64_t width, int64_t blocks, float* output) {
  __shared__ float sums[kLanes][kColumns];
  const int64_t group = blockIdx.x / blocks, column = blockIdx.x % blocks * kColumns + threadIdx.x;
  float sum = 0;
  if (column < width) {
    const float* from = partial + group * parts * width + column;
#pragma unroll 8
    for (int64_t part = threadIdx.y; part < parts; part += kLanes) sum += from[part * width];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
  float total = 0;
#pragma unroll
  for (int lane = 0; lane < kLanes; ++lane) total += sums[lane][threadIdx.x];
  output[group * width + column] = total;
}

}  // namespace

void launch_group_sums(const float* partial, const RowParts& parts, int64_t width, float* output, const Launch& on) {
  if (parts.groups * width == 0) return;
  const int64_t blocks = (width + kColumns - 1) / kColumns;
  group_sums_kernel<<<blocks_of(parts.groups * blocks, 1), dim3(kColumns, kLanes), 0, on.stream()>>>(
      partial, parts.parts, width, blocks, output);
  check_launch("group_sums_kernel");
}

}  // namespace vsa::cuda
