#include "core/error.h"
#include "cuda/check.h"
#include "cuda/lists_check.h"

namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;

// A warp checks a row. Entries are read only between offsets that lie within the memory.
__global__ void __launch_bounds__(kThreads) lists_check(TileLists lists, int64_t rows, int32_t* problem) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  const int64_t begin = lists.offsets[row], end = lists.offsets[row + 1];
  bool bad = begin < 0 || begin > end || end > lists.count || end - begin > lists.columns;
  bad |= row == 0 && begin != 0;
  bad |= row == rows - 1 && end != lists.count;
  if (!bad) {
    for (int64_t i = begin + lane; i < end; i += 32) {
      const int32_t tile = lists.indices[i], previous = i > begin ? lists.indices[i - 1] : -1;
      bad |= tile <= previous || tile >= lists.columns;  // thus not negative either
    }
  }
  if (bad) *problem = 1;
}

__global__ void __launch_bounds__(kThreads)
    lists_copy_offsets(TileLists lists, int64_t rows, int32_t* problem, int32_t* safe_offsets) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  // Without rows nothing was checked yet.
  const bool bad = *problem != 0 || (rows == 0 && (lists.offsets[0] != 0 || lists.count != 0));
  if (i <= rows) safe_offsets[i] = bad ? 0 : lists.offsets[i];
  if (bad && rows == 0) *problem = 1;
}

}  // namespace

void launch_lists_check(const TileLists& lists, int64_t heads, int32_t* problem, int32_t* safe_offsets,
                        const Launch& on) {
  if (lists.offsets == nullptr) return;
  const int64_t rows = heads * lists.rows;
  VSA_CHECK(rows < INT32_MAX, "lists must have fewer than 2^31 rows");
  if (rows > 0) {
    const int64_t blocks = (rows + kThreads / 32 - 1) / (kThreads / 32);
    lists_check<<<static_cast<uint32_t>(blocks), kThreads, 0, on.stream()>>>(lists, rows, problem);
    check_launch("lists_check");
  }
  lists_copy_offsets<<<static_cast<uint32_t>(rows / kThreads + 1), kThreads, 0, on.stream()>>>(lists, rows, problem,
                                                                                               safe_offsets);
  check_launch("lists_copy_offsets");
}

}  // namespace vsa::cuda
