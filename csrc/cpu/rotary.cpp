#include <algorithm>

#include "cpu/float_rows.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kTokens = 16;  // of a work item

struct RotaryScratch {
  Scratch x, output;
};

}  // namespace

void run(const Rotary& p) {
  const int64_t width = p.H * p.D, tokens = p.B * p.L;
  const float sign = p.inverse ? -1.0f : 1.0f;
  parallel_for((tokens + kTokens - 1) / kTokens, [&](int64_t item) {
    thread_local RotaryScratch scratch;
    float* const room[2] = {scratch.x.floats(width), scratch.output.floats(width)};
    for (int64_t token = item * kTokens; token < std::min((item + 1) * kTokens, tokens); ++token) {
      const float* table = p.table + token % p.L * p.D;
      const float* x = floats_of(p.dtype, p.x, token * width, width, room[0]);
      const FloatOutput output(p.dtype, p.output, token * width, width, room[1]);
      for (int64_t head = 0; head < width; head += p.D) {
        for (int64_t c = 0; c < p.D; c += 2) {
          const float real = x[head + c], imaginary = x[head + c + 1];
          const float cosine = table[c], sine = sign * table[c + 1];
          output.floats[head + c] = real * cosine - imaginary * sine;
          output.floats[head + c + 1] = real * sine + imaginary * cosine;
        }
      }
      output.write();
    }
  });
}

}  // namespace vsa::cpu
