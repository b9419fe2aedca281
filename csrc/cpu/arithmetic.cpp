#include <algorithm>
#include <cstring>
#include <vector>

#include "cpu/chunks.h"
#include "cpu/float_rows.h"
#include "cpu/ops.h"

namespace vsa::cpu {
namespace {

// x[(begin + i) % period] as floats, i < count.
const float* repeated_floats(DType dtype, const void* x, int64_t period, int64_t begin, int64_t count, float* room) {
  const int64_t first = begin % period, ahead = std::min(count, period - first);
  if (ahead == count) return floats_of(dtype, x, first, count, room);
  const char* bytes = static_cast<const char*>(x);
  kernels().to_float(dtype, ahead, bytes + first * size_of(dtype), room);
  const int64_t behind = std::min(count - ahead, first);
  kernels().to_float(dtype, behind, bytes, room + ahead);
  for (int64_t i = ahead + behind; i < count; ++i) room[i] = room[i - period];
  return room;
}

// The sum of all chunk(index), one after another.
template <class Chunk>
double sum_chunks(int64_t count, const Chunk& chunk) {
  std::vector<double> sums(static_cast<size_t>(chunks_of(count)));
  parallel_for(chunks_of(count), [&](int64_t index) { sums[static_cast<size_t>(index)] = chunk(index); });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

void run(const Add& p) {
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float a_room[kBlockElements], b_room[kBlockElements], output_room[kBlockElements];
    const float* a = floats_of(p.dtype, p.a, begin, count, a_room);
    const FloatOutput output(p.dtype, p.output, begin, count, output_room);
    if (p.b == nullptr) {
      for (int64_t i = 0; i < count; ++i) output.floats[i] = p.alpha * a[i];
    } else {
      const float* b = repeated_floats(p.dtype, p.b, p.b_count, begin, count, b_room);
      for (int64_t i = 0; i < count; ++i) output.floats[i] = p.alpha * a[i] + p.beta * b[i];
    }
    output.write();
  });
}

void run(const Multiply& p) {
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float a_room[kBlockElements], b_room[kBlockElements], output_room[kBlockElements];
    const float* a = floats_of(p.dtype, p.a, begin, count, a_room);
    const float* b = floats_of(p.dtype, p.b, begin, count, b_room);
    const FloatOutput output(p.dtype, p.output, begin, count, output_room);
    for (int64_t i = 0; i < count; ++i) output.floats[i] = a[i] * b[i];
    output.write();
  });
}

void run(const Sum& p) {
  const double total = sum_chunks(p.count, [&](int64_t chunk) {
    double sum = 0;
    for_blocks_of(chunk, p.count, [&](int64_t begin, int64_t count) {
      alignas(64) float room[kBlockElements];
      const float* x = floats_of(p.dtype, p.x, begin, count, room);
      sum += sum_terms(count, [x](int64_t i) { return static_cast<double>(x[i]); });
    });
    return sum;
  });
  *p.output = static_cast<float>(p.scale * total);
}

void run(const Spread& p) {
  const float value = static_cast<float>(p.scale * static_cast<double>(*p.x));
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float room[kBlockElements];
    const FloatOutput output(p.dtype, p.output, begin, count, room);
    std::fill_n(output.floats, count, value);
    output.write();
  });
}

void run(const SquaredErrorForward& p) {
  const double total = sum_chunks(p.count, [&](int64_t chunk) {
    double sum = 0;
    for_blocks_of(chunk, p.count, [&](int64_t begin, int64_t count) {
      alignas(64) float prediction_room[kBlockElements], target_room[kBlockElements];
      const float* prediction = floats_of(p.dtype, p.prediction, begin, count, prediction_room);
      const float* target = floats_of(p.dtype, p.target, begin, count, target_room);
      sum += sum_terms(count, [prediction, target](int64_t i) {
        const double error = static_cast<double>(prediction[i]) - static_cast<double>(target[i]);
        return error * error;
      });
    });
    return sum;
  });
  *p.output = static_cast<float>(total / static_cast<double>(p.count));
}

void run(const SquaredErrorBackward& p) {
  const double factor = 2.0 / static_cast<double>(p.count) * static_cast<double>(*p.doutput);
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float prediction_room[kBlockElements], target_room[kBlockElements], output_room[kBlockElements];
    const float* prediction = floats_of(p.dtype, p.prediction, begin, count, prediction_room);
    const float* target = floats_of(p.dtype, p.target, begin, count, target_room);
    const FloatOutput output(p.dtype, p.dprediction, begin, count, output_room);
    for (int64_t i = 0; i < count; ++i) {
      const double error = static_cast<double>(prediction[i]) - static_cast<double>(target[i]);
      output.floats[i] = static_cast<float>(error * factor);
    }
    output.write();
  });
}

void run(const CopyRows& p) {
  constexpr int64_t kItemBytes = 1 << 16;
  if (p.rows == 0 || p.bytes == 0) return;
  const char* x = static_cast<const char*>(p.x) + p.x_offset;
  char* output = static_cast<char*>(p.output) + p.output_offset;
  // Short rows go together, long ones in pieces.
  const int64_t rows_of_item = std::max<int64_t>(kItemBytes / p.bytes, 1);
  const int64_t pieces = (p.bytes + kItemBytes - 1) / kItemBytes;
  parallel_for((p.rows + rows_of_item - 1) / rows_of_item * pieces, [&](int64_t item) {
    const int64_t first = item / pieces * rows_of_item, end = std::min(first + rows_of_item, p.rows);
    const int64_t at = item % pieces * kItemBytes, bytes = std::min(kItemBytes, p.bytes - at);
    for (int64_t row = first; row < end; ++row) {
      std::memcpy(output + row * p.output_stride + at, x + row * p.x_stride + at, static_cast<size_t>(bytes));
    }
  });
}

}  // namespace vsa::cpu
