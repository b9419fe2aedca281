#include <algorithm>
#include <cmath>

#include "cpu/float_rows.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/row_chunks.h"
#include "cpu/scratch.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kBlock = 1024;  // elements whose sum is one fp32 number; those of blocks are added in fp64

double sum(int64_t count, const float* x) {
  constexpr int64_t kLanes = 16;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    float lanes[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
    }
    for (int64_t lane = 0; i < end; ++i, ++lane) lanes[lane] += x[i];
    float block = 0;
    for (const float lane : lanes) block += lane;
    total += block;
  }
  return total;
}

double dot(int64_t count, const float* x, const float* y) {
  double total = 0;
  for (int64_t i = 0; i < count; i += kBlock) total += kernels().dot(std::min(kBlock, count - i), x + i, y + i);
  return total;
}

// output = x - mean, less what is left of the mean in that: where the mean is large beside the deviations, it is not
// exact enough as a float, but the first differences are exact. Returns the mean in full.
double center(int64_t count, const float* x, float mean, float* output) {
  for (int64_t c = 0; c < count; ++c) output[c] = x[c] - mean;
  const double left = sum(count, output) / static_cast<double>(count);
  const float rest = static_cast<float>(left);
  for (int64_t c = 0; c < count; ++c) output[c] -= rest;
  return mean + left;
}

struct NormScratch {
  Scratch x, doutput, deviation, gain, gradient, output;
};

NormScratch& scratch() {
  thread_local NormScratch scratch;
  return scratch;
}

// What a row is multiplied by, as [width] floats.
const float* gain_of(const float* gain, bool one_plus, int64_t group, int64_t width) {
  float* row = scratch().gain.floats(width);
  const float base = one_plus ? 1.0f : 0.0f;
  for (int64_t c = 0; c < width; ++c) row[c] = gain == nullptr ? 1.0f : base + gain[group * width + c];
  return row;
}

}  // namespace

void run(const NormForward& p) {
  const int64_t width = p.width;
  const RowChunks chunks(p.rows, p.groups);
  parallel_for(chunks.count(), [&](int64_t chunk) {
    NormScratch& memory = scratch();
    const float* gain = gain_of(p.gain, p.one_plus, chunks.group(chunk), width);
    const float* shift = p.shift == nullptr ? nullptr : p.shift + chunks.group(chunk) * width;
    float* deviation = memory.deviation.floats(width);
    for (int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      const float* x = floats_of(p.dtype, p.x, row * width, width, memory.x.floats(width));
      const float* centered = x;
      if (!p.rms) {
        const float mean = static_cast<float>(sum(width, x) / static_cast<double>(width));
        p.mean[row] = static_cast<float>(center(width, x, mean, deviation));
        centered = deviation;
      }
      const double variance = dot(width, centered, centered) / static_cast<double>(width);
      const float rstd = static_cast<float>(1 / std::sqrt(variance + static_cast<double>(p.eps)));
      p.rstd[row] = rstd;
      const FloatOutput output(p.dtype, p.output, row * width, width, memory.output.floats(width));
      if (shift == nullptr) {
        for (int64_t c = 0; c < width; ++c) output.floats[c] = centered[c] * rstd * gain[c];
      } else {
        for (int64_t c = 0; c < width; ++c) output.floats[c] = centered[c] * rstd * gain[c] + shift[c];
      }
      output.write();
    }
  });
}

void run(const NormBackward& p) {
  const int64_t width = p.width;
  const double scale = 1 / static_cast<double>(width);
  const RowChunks chunks(p.rows, p.groups);
  thread_local Scratch gain_sums, shift_sums;
  const GroupSums dgains(chunks, width, p.dgain, gain_sums), dshifts(chunks, width, p.dshift, shift_sums);
  parallel_for(chunks.count(), [&](int64_t chunk) {
    NormScratch& memory = scratch();
    const float* gain = gain_of(p.gain, p.one_plus, chunks.group(chunk), width);
    float* normal = memory.deviation.floats(width);
    float* gradient = memory.gradient.floats(width);
    float* dgain = dgains.begin(chunk);
    float* dshift = dshifts.begin(chunk);
    for (int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      const float* x = floats_of(p.dtype, p.x, row * width, width, memory.x.floats(width));
      const float* doutput = floats_of(p.dtype, p.doutput, row * width, width, memory.doutput.floats(width));
      const float rstd = p.rstd[row];
      if (!p.rms) center(width, x, p.mean[row], normal);
      const float* centered = p.rms ? x : normal;
      for (int64_t c = 0; c < width; ++c) {
        normal[c] = centered[c] * rstd;
        gradient[c] = doutput[c] * gain[c];
      }
      if (dgain != nullptr) {
        for (int64_t c = 0; c < width; ++c) dgain[c] += doutput[c] * normal[c];
      }
      if (dshift != nullptr) {
        for (int64_t c = 0; c < width; ++c) dshift[c] += doutput[c];
      }
      // The gradient without its parts along the ones (they come from the mean) and along the normalised row.
      const float mean = p.rms ? 0.0f : static_cast<float>(sum(width, gradient) * scale);
      const float along = static_cast<float>(dot(width, gradient, normal) * scale);
      const FloatOutput dx(p.dtype, p.dx, row * width, width, memory.output.floats(width));
      for (int64_t c = 0; c < width; ++c) dx.floats[c] = rstd * (gradient[c] - mean - normal[c] * along);
      dx.write();
    }
  });
  dgains.finish();
  dshifts.finish();
}

}  // namespace vsa::cpu
