#include <algorithm>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/check.h"
#include "cuda/launch.h"
#include "cuda/ptx/dependent_launch.h"

// The transpose goes through bits: for 32 rows of the lists at a time, a word for every column says which of the rows
// have it. A column's words, in order, are its list. Three kernels: bits, counts, and lists; or one, for small lists.
// Setting bits in shared memory is the only atomic operation, and its order does not matter.
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr unsigned kWarp = 0xffffffffu;
constexpr int kBitsThreads = 512;
constexpr int kBitsColumns = 8192;  // columns whose words a block holds at a time

struct TransposeArgs {
  TileLists lists;
  int heads, rows, columns;
  int row_blocks;     // of 32 rows
  int column_blocks;  // of kBitsColumns in the first kernel
  uint32_t* words;    // [heads, row_blocks, columns], scratch
  int32_t* counts;    // [heads, columns], scratch
  int32_t* offsets;   // [heads * columns + 1]
  int32_t* indices;
};

// A block: 32 rows of one head, kBitsColumns columns.
__global__ void __launch_bounds__(kBitsThreads) transpose_bits(TransposeArgs p) {
  ptx::join_chain();
  __shared__ uint32_t words[kBitsColumns];
  const int first = static_cast<int>(blockIdx.x) % p.column_blocks * kBitsColumns;
  const int row_block = static_cast<int>(blockIdx.x) / p.column_blocks;  // of all heads
  const int head = row_block / p.row_blocks, row = (row_block - head * p.row_blocks) * 32;
  const int columns = min(kBitsColumns, p.columns - first);
  for (int j = threadIdx.x; j < columns; j += kBitsThreads) words[j] = 0;
  __syncthreads();
  const int lane = threadIdx.x % 32;
  for (int r = threadIdx.x / 32; r < min(32, p.rows - row); r += kBitsThreads / 32) {
    const int32_t* offsets = p.lists.offsets + static_cast<int64_t>(head) * p.rows + row + r;
    const int begin = offsets[0], end = offsets[1];
#pragma unroll 4
    for (int i = begin + lane; i < end; i += 32) {
      const int column = p.lists.indices[i] - first;
      if (column >= 0 && column < columns) atomicOr(&words[column], 1u << r);
    }
  }
  __syncthreads();
  uint32_t* to = p.words + static_cast<int64_t>(row_block) * p.columns + first;
  for (int j = threadIdx.x; j < columns; j += kBitsThreads) to[j] = words[j];
}

// A thread counts the rows of one column.
__global__ void __launch_bounds__(kThreads) transpose_counts(TransposeArgs p) {
  ptx::join_chain();
  const int item = blockIdx.x * kThreads + threadIdx.x;
  if (item >= p.heads * p.columns) return;
  const int head = item / p.columns, column = item - head * p.columns;
  const uint32_t* words = p.words + static_cast<int64_t>(head) * p.row_blocks * p.columns + column;
  int count = 0;
#pragma unroll 8
  for (int block = 0; block < p.row_blocks; ++block) count += __popc(words[static_cast<int64_t>(block) * p.columns]);
  p.counts[item] = count;
}

__device__ __forceinline__ int warp_scan(int x, int lane) {
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const int other = __shfl_up_sync(kWarp, x, distance);
    if (lane >= distance) x += other;
  }
  return x;  // inclusive
}

constexpr int kListColumns = 32;  // of a block that writes lists
constexpr int kListRows = 1024;   // whose bits it has at a time

// What such a block has in shared memory.
template <int kBlockWarps>
struct ColumnLists {
  uint32_t words[kListRows / 32][kListColumns + 1];  // [32 rows, column]
  uint16_t list[kBlockWarps][kListRows];             // rows of one column
  int sums[kBlockWarps];
  int begins[kListColumns];
};

// Tells where the block's columns begin: in shared memory, and in the offsets. `before`: entries of the head's columns
// ahead of `first`, a share of them from every thread. count(column of the block) is called when all threads have come
// here.
template <int kBlockWarps, typename Count>
__device__ __forceinline__ void begin_columns(const TransposeArgs& p, ColumnLists<kBlockWarps>& shared, int head,
                                              int first, int before, const Count& count) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  before = __reduce_add_sync(kWarp, before);
  if (lane == 0) shared.sums[warp] = before;
  __syncthreads();
  if (warp == 0) {
    int begin = p.lists.offsets[static_cast<int64_t>(head) * p.rows];  // a head has as many entries in the transpose
    for (int w = 0; w < kBlockWarps; ++w) begin += shared.sums[w];
    const int column = first + lane, own = column < p.columns ? count(lane) : 0;
    begin += warp_scan(own, lane) - own;
    shared.begins[lane] = begin;
    if (column < p.columns) p.offsets[static_cast<int64_t>(head) * p.columns + column] = begin;
    if (blockIdx.x == 0 && lane == 0) {
      p.offsets[static_cast<int64_t>(p.heads) * p.columns] = p.lists.offsets[static_cast<int64_t>(p.heads) * p.rows];
    }
  }
  __syncthreads();
}

// Writes the rows that the block's words have, from `first_row` on, behind those of the columns' lists that are there:
// a warp has kPerWarp columns. The lists come together in shared memory, so that they are written whole.
template <int kBlockWarps, int kPerWarp>
__device__ __forceinline__ void write_columns(const TransposeArgs& p, ColumnLists<kBlockWarps>& shared, int first_row,
                                              int (&next)[kPerWarp]) {
  static_assert(kPerWarp * kBlockWarps == kListColumns);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  uint16_t* const list = shared.list[warp];
#pragma unroll
  for (int c = 0; c < kPerWarp; ++c) {
    uint32_t word = shared.words[lane][warp * kPerWarp + c];  // every lane has the bits of 32 rows
    const int count = __popc(word), end = warp_scan(count, lane), total = __shfl_sync(kWarp, end, 31);
    for (int at = end - count; word != 0; word &= word - 1) {
      list[at++] = static_cast<uint16_t>(lane * 32 + __ffs(static_cast<int>(word)) - 1);
    }
    __syncwarp();
    for (int i = lane; i < total; i += 32) p.indices[next[c] + i] = first_row + list[i];
    __syncwarp();
    next[c] += total;
  }
}

// A block: kListColumns columns of one head. Where a column begins comes from the counts before it, those of its own
// head only.
__global__ void __launch_bounds__(kThreads) transpose_lists(TransposeArgs p) {
  ptx::join_chain();
  constexpr int kPerWarp = kListColumns / kWarps;
  __shared__ ColumnLists<kWarps> shared;
  const int blocks = (p.columns + kListColumns - 1) / kListColumns;
  const int head = static_cast<int>(blockIdx.x) / blocks;
  const int first = (static_cast<int>(blockIdx.x) - head * blocks) * kListColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  const int32_t* counts = p.counts + static_cast<int64_t>(head) * p.columns;
  int before = 0;
  for (int j = threadIdx.x; j < first; j += kThreads) before += counts[j];
  begin_columns(p, shared, head, first, before, [&](int column) { return counts[first + column]; });

  int next[kPerWarp];
#pragma unroll
  for (int c = 0; c < kPerWarp; ++c) next[c] = shared.begins[warp * kPerWarp + c];
  const uint32_t* from = p.words + static_cast<int64_t>(head) * p.row_blocks * p.columns + first + lane;
  for (int block = 0; block < p.row_blocks; block += kListRows / 32) {
#pragma unroll
    for (int r = warp; r < kListRows / 32; r += kWarps) {
      const bool exists = block + r < p.row_blocks && first + lane < p.columns;
      shared.words[r][lane] = exists ? from[static_cast<int64_t>(block + r) * p.columns] : 0;
    }
    __syncthreads();
    write_columns(p, shared, block * 32, next);
    __syncthreads();
  }
}

// The whole transpose in one kernel, for small lists of up to kListRows rows: a block reads all lists of its head,
// keeps the bits of its own columns, and counts the entries of those before.
constexpr int kSmallThreads = 512;
constexpr int kRowsInFlight = 4;  // of a warp

__global__ void __launch_bounds__(kSmallThreads, 1) transpose_small(TransposeArgs p) {
  ptx::join_chain();
  constexpr int kSmallWarps = kSmallThreads / 32, kPerWarp = kListColumns / kSmallWarps;
  __shared__ ColumnLists<kSmallWarps> shared;
  const int blocks = (p.columns + kListColumns - 1) / kListColumns;
  const int head = static_cast<int>(blockIdx.x) / blocks;
  const int first = (static_cast<int>(blockIdx.x) - head * blocks) * kListColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int r = warp; r < kListRows / 32; r += kSmallWarps) shared.words[r][lane] = 0;
  __syncthreads();

  int before = 0;
  const auto take = [&](int row, int column) {
    before += column < first ? 1 : 0;
    if (column >= first && column < first + kListColumns) {
      atomicOr(&shared.words[row / 32][column - first], 1u << row % 32);
    }
  };
  const int32_t* offsets = p.lists.offsets + static_cast<int64_t>(head) * p.rows;
  const int32_t* indices = p.lists.indices;
  for (int base = warp; base < p.rows; base += 32 * kSmallWarps) {
    // Every lane knows where one of 32 rows lies.
    const int known = base + lane * kSmallWarps;
    const int begins = known < p.rows ? offsets[known] : 0, ends = known < p.rows ? offsets[known + 1] : 0;
    for (int i = 0; i < 32 && base + i * kSmallWarps < p.rows; i += kRowsInFlight) {
      int columns[kRowsInFlight][2];
#pragma unroll
      for (int k = 0; k < kRowsInFlight; ++k) {
        const int at = __shfl_sync(kWarp, begins, i + k) + lane, end = __shfl_sync(kWarp, ends, i + k);
#pragma unroll
        for (int part = 0; part < 2; ++part) {
          columns[k][part] = at + 32 * part < end ? indices[at + 32 * part] : INT32_MAX;
        }
      }
#pragma unroll
      for (int k = 0; k < kRowsInFlight; ++k) {
        const int row = base + (i + k) * kSmallWarps;
        take(row, columns[k][0]);
        take(row, columns[k][1]);
        const int begin = __shfl_sync(kWarp, begins, i + k), end = __shfl_sync(kWarp, ends, i + k);
#pragma unroll 4
        for (int at = begin + 64 + lane; at < end; at += 32) take(row, indices[at]);
      }
    }
  }
  begin_columns(p, shared, head, first, before, [&](int column) {
    int count = 0;
    for (int r = 0; r < p.row_blocks; ++r) count += __popc(shared.words[r][column]);
    return count;
  });
  int next[kPerWarp];
#pragma unroll
  for (int c = 0; c < kPerWarp; ++c) next[c] = shared.begins[warp * kPerWarp + c];
  write_columns(p, shared, 0, next);
}

// Blocks of a head read its lists again and again: up to so many entries in all that is faster than two more kernels.
constexpr int64_t kMostReadAgain = 16 << 20;

// A warp makes the bits of one row, kRowWords words at a time.
constexpr int kRowWords = 512;

__global__ void __launch_bounds__(kThreads) lists_to_bits(TileLists lists, int64_t rows, int words, int32_t* bits) {
  __shared__ uint32_t row_words[kWarps][kRowWords];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  uint32_t* mine = row_words[threadIdx.x / 32];
  const int columns = static_cast<int>(lists.columns);
  for (int first = 0; first < words; first += kRowWords) {
    const int count = min(kRowWords, words - first);
    for (int w = lane; w < count; w += 32) {
      const int left = columns - (first + w) * 32;  // 1 or more
      const uint32_t full = left >= 32 ? 0xffffffffu : (1u << left) - 1;
      mine[w] = lists.offsets == nullptr ? full : 0;
    }
    __syncwarp();
    if (lists.offsets != nullptr) {
      const int begin = lists.offsets[row], end = lists.offsets[row + 1];
      for (int i = begin + lane; i < end; i += 32) {
        const int column = lists.indices[i] - first * 32;
        if (column >= 0 && column < count * 32) atomicOr(&mine[column / 32], 1u << column % 32);
      }
      __syncwarp();
    }
    for (int w = lane; w < count; w += 32) bits[row * words + first + w] = static_cast<int32_t>(mine[w]);
    __syncwarp();
  }
}

}  // namespace

void launch(const TransposeLists& p, const Launch& on) {
  VSA_CHECK(p.lists.offsets != nullptr, "full lists have no transpose in memory");
  const int64_t heads = p.B * p.H, rows = p.lists.rows, columns = p.lists.columns;
  VSA_CHECK(heads * rows < INT32_MAX && heads * columns < INT32_MAX - kThreads, "too many lists");
  if (heads * columns == 0 || rows == 0) {
    check(cudaMemsetAsync(p.offsets, 0, static_cast<size_t>(heads * columns + 1) * sizeof(int32_t), on.stream()),
          "cudaMemsetAsync");
    return;
  }
  TransposeArgs args;
  args.lists = p.lists;
  args.heads = static_cast<int>(heads), args.rows = static_cast<int>(rows), args.columns = static_cast<int>(columns);
  args.row_blocks = (args.rows + 31) / 32;
  args.column_blocks = (args.columns + kBitsColumns - 1) / kBitsColumns;
  args.offsets = p.offsets, args.indices = p.indices;
  const int64_t list_blocks = (columns + kListColumns - 1) / kListColumns;
  const auto blocks = static_cast<uint32_t>(heads * list_blocks);
  if (rows <= kListRows && p.lists.count * list_blocks <= kMostReadAgain) {
    return launch_in_chain(transpose_small, "transpose_small", on, blocks, kSmallThreads, 0, args);
  }
  args.words = on.scratch_of<uint32_t>(heads * args.row_blocks * columns);
  args.counts = on.scratch_of<int32_t>(heads * columns);

  const auto bits_blocks = static_cast<uint32_t>(heads * args.row_blocks * args.column_blocks);
  launch_in_chain(transpose_bits, "transpose_bits", on, bits_blocks, kBitsThreads, 0, args);
  const auto count_blocks = static_cast<uint32_t>((heads * columns + kThreads - 1) / kThreads);
  launch_in_chain(transpose_counts, "transpose_counts", on, count_blocks, kThreads, 0, args);
  launch_in_chain(transpose_lists, "transpose_lists", on, blocks, kThreads, 0, args);
}

void launch(const ListsToBits& p, const Launch& on) {
  const int64_t rows = p.B * p.H * p.lists.rows, words = (p.lists.columns + 31) / 32;
  if (rows * words == 0) return;
  VSA_CHECK(rows < INT32_MAX, "lists must have fewer than 2^31 rows");
  launch_kernel(lists_to_bits, "lists_to_bits", on, static_cast<uint32_t>((rows + kWarps - 1) / kWarps), kThreads, 0,
                p.lists, rows, static_cast<int>(words), p.bits);
}

}  // namespace vsa::cuda
