#include <algorithm>

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

// Matrix products in blocks of the output, each summed over K in one chain of multiply-adds (cpu/kernels.h): neither
// the blocks nor the threads change a bit.
namespace vsa::cpu {
namespace {

constexpr int64_t kDepth = 256;         // of K at a time: 32 columns of b, 32 KiB, stay in the first-level cache
constexpr int64_t kRows = 128;          // of a at a time, 128 KiB: they stay in the second-level cache, beside b
constexpr int64_t kBlockRows = 512;     // of an item: its columns of b are packed once for all of them
constexpr int64_t kBlockColumns = 128;  // of an item
constexpr int64_t kLeast = 32;          // rows and columns of an item that is cut smaller for the threads' sake

constexpr int64_t kSumRows = 256;     // of a column sum's first stage: the sums of so many rows are added up after
constexpr int64_t kSumColumns = 256;  // of an item of it

constexpr float kOne = 1;  // as a matrix with strides of 0: a column or a row of ones

struct Workspace {
  Scratch a, b, c, bias, converted;
};

// A row-major matrix in memory.
struct Matrix {
  DType dtype;
  const void* data;
  int64_t columns;

  const void* at(int64_t row, int64_t column) const {
    return static_cast<const char*>(data) + (row * columns + column) * size_of(dtype);
  }

  // Part of it as floats; what is left of output_row is not touched.
  void copy(int64_t row, int64_t column, int64_t rows, int64_t width, float* output, int64_t output_row) const {
    for (int64_t i = 0; i < rows; ++i) kernels().to_float(dtype, width, at(row + i, column), output + i * output_row);
  }
};

struct Range {
  int64_t begin, count;

  Range(int64_t index, int64_t step, int64_t end) : begin(index * step), count(std::min(step, end - begin)) {}
};

int64_t parts(int64_t count, int64_t step) {
  return (count + step - 1) / step;
}

// Left operand of the kernel: op(a) from a row and a column on.
struct Left {
  const float* data;
  int64_t row, column;
};

// In place if it can be, else as floats in the order of the memory: the kernel reads rows and columns alike.
Left pack_left(const MatrixProduct& p, Range rows, Range depth, Scratch& scratch) {
  const Matrix a{p.dtype, p.a, p.transpose_a ? p.M : p.K};
  if (p.transpose_a) {
    const int64_t stride = row_stride(rows.count);
    float* packed = scratch.floats(depth.count * stride);
    a.copy(depth.begin, rows.begin, depth.count, rows.count, packed, stride);
    return {packed, 1, stride};
  }
  if (p.dtype == DType::float32) return {static_cast<const float*>(a.at(rows.begin, depth.begin)), p.K, 1};
  const int64_t stride = row_stride(depth.count);
  float* packed = scratch.floats(rows.count * stride);
  a.copy(rows.begin, depth.begin, rows.count, depth.count, packed, stride);
  return {packed, stride, 1};
}

// op(b) as floats, [depth, row_stride(columns)], with columns of 0 up to a multiple of 16.
const float* pack_right(const MatrixProduct& p, Range depth, Range columns, Workspace& work) {
  const int64_t stride = row_stride(columns.count), padded = round_up(columns.count, 16);
  float* packed = work.b.floats(depth.count * stride);
  if (!p.transpose_b) {
    const Matrix b{p.dtype, p.b, p.N};
    b.copy(depth.begin, columns.begin, depth.count, columns.count, packed, stride);
    for (int64_t k = 0; k < depth.count && padded > columns.count; ++k) {
      std::fill(packed + k * stride + columns.count, packed + k * stride + padded, 0.0f);
    }
    return packed;
  }
  const Matrix b{p.dtype, p.b, p.K};
  const float* rows = static_cast<const float*>(b.at(columns.begin, depth.begin));
  int64_t rows_stride = p.K;
  if (p.dtype != DType::float32) {
    rows_stride = row_stride(depth.count);
    float* converted = work.converted.floats(columns.count * rows_stride);
    b.copy(columns.begin, depth.begin, columns.count, depth.count, converted, rows_stride);
    rows = converted;
  }
  kernels().transpose(columns.count, depth.count, rows, rows_stride, packed, stride, padded);
  return packed;
}

// One block of the output.
void multiply(const MatrixProduct& p, Range rows, Range columns) {
  thread_local Workspace work;
  const Kernels& kernel = kernels();
  const int64_t padded = round_up(columns.count, 16), steps = std::max<int64_t>(parts(p.K, kDepth), 1);
  const int64_t output_size = size_of(p.output_dtype);
  char* output = static_cast<char*>(p.output) + (rows.begin * p.N + columns.begin) * output_size;
  const bool in_place = p.output_dtype == DType::float32 && padded == columns.count;
  const int64_t c_row = in_place ? p.N : row_stride(columns.count);
  float* c = in_place ? reinterpret_cast<float*>(output) : work.c.floats(rows.count * c_row);
  float* bias = nullptr;
  if (p.bias != nullptr) {
    bias = work.bias.floats(padded);
    std::copy_n(p.bias + columns.begin, columns.count, bias);
    std::fill(bias + columns.count, bias + padded, 0.0f);
  }
  for (int64_t step = 0; step < steps; ++step) {
    const Range depth(step, kDepth, p.K);
    const float* b = pack_right(p, depth, columns, work);
    for (int64_t part = 0; part < parts(rows.count, kRows); ++part) {
      Range inner(part, kRows, rows.count);
      float* to = c + inner.begin * c_row;
      char* rounded = output + inner.begin * p.N * output_size;
      inner.begin += rows.begin;
      const Left a = pack_left(p, inner, depth, work.a);
      kernel.product({.m = inner.count,
                      .n = padded,
                      .k = depth.count,
                      .a = a.data,
                      .a_row = a.row,
                      .a_column = a.column,
                      .b = b,
                      .b_row = row_stride(columns.count),
                      .c = to,
                      .c_row = c_row,
                      .accumulate = step > 0});
      if (step + 1 < steps) continue;
      if (bias != nullptr) {  // one more step of the sum, by a column of ones
        kernel.product({.m = inner.count,
                        .n = padded,
                        .k = 1,
                        .a = &kOne,
                        .a_row = 0,
                        .a_column = 0,
                        .b = bias,
                        .b_row = 0,
                        .c = to,
                        .c_row = c_row,
                        .accumulate = true});
      }
      for (int64_t i = 0; i < inner.count && !in_place; ++i) {
        kernel.from_float(p.output_dtype, columns.count, to + i * c_row, rounded + i * p.N * output_size);
      }
    }
  }
}

}  // namespace

void run(const MatrixProduct& p) {
  if (p.M == 0 || p.N == 0) return;
  int64_t rows = kBlockRows, columns = kBlockColumns;
  // Some items for every thread, so that none waits long for the last.
  while (parts(p.M, rows) * parts(p.N, columns) < 3 * threads() && std::max(rows, columns) > kLeast) {
    (rows >= columns ? rows : columns) /= 2;
  }
  const int64_t across = parts(p.N, columns);
  parallel_for(parts(p.M, rows) * across,
               [&](int64_t item) { multiply(p, Range(item / across, rows, p.M), Range(item % across, columns, p.N)); });
}

// A row of ones times x, in chunks of rows; then a row of ones times the sums of the chunks.
void run(const ColumnSum& p) {
  const int64_t chunks = parts(p.rows, kSumRows), blocks = parts(p.columns, kSumColumns);
  const int64_t stride = round_up(p.columns, 16);
  thread_local Scratch scratch;
  float* sums = scratch.floats(chunks * stride);
  const auto add_up = [](const float* rows, int64_t row, int64_t count, int64_t columns, float* sum) {
    kernels().product({.m = 1,
                       .n = round_up(columns, 16),
                       .k = count,
                       .a = &kOne,
                       .a_row = 0,
                       .a_column = 0,
                       .b = rows,
                       .b_row = row,
                       .c = sum,
                       .c_row = 0,
                       .accumulate = false});
  };
  parallel_for(chunks * blocks, [&](int64_t item) {
    thread_local Scratch converted;
    const Range rows(item / blocks, kSumRows, p.rows), columns(item % blocks, kSumColumns, p.columns);
    const Matrix x{p.dtype, p.x, p.columns};
    float* sum = sums + item / blocks * stride + columns.begin;
    if (p.dtype == DType::float32 && columns.count % 16 == 0) {
      add_up(static_cast<const float*>(x.at(rows.begin, columns.begin)), p.columns, rows.count, columns.count, sum);
      return;
    }
    const int64_t padded = round_up(columns.count, 16);
    float* block = converted.floats(rows.count * padded);
    std::fill_n(block, rows.count * padded, 0.0f);
    x.copy(rows.begin, columns.begin, rows.count, columns.count, block, padded);
    add_up(block, padded, rows.count, columns.count, sum);
  });
  parallel_for(blocks, [&](int64_t item) {
    alignas(64) float total[kSumColumns];
    const Range columns(item, kSumColumns, p.columns);
    add_up(sums + columns.begin, stride, chunks, columns.count, total);
    std::copy_n(total, columns.count, p.output + columns.begin);
  });
}

}  // namespace vsa::cpu
