#include "cpu/float_rows.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/row_chunks.h"
#include "cpu/scratch.h"

namespace vsa::cpu {
namespace {

struct ResidualScratch {
  Scratch first, second, output;
};

ResidualScratch& scratch() {
  thread_local ResidualScratch scratch;
  return scratch;
}

}  // namespace

void run(const GatedResidualForward& p) {
  const int64_t width = p.width;
  const RowChunks chunks(p.rows, p.groups);
  parallel_for(chunks.count(), [&](int64_t chunk) {
    ResidualScratch& memory = scratch();
    const float* gate = p.gate + chunks.group(chunk) * width;
    for (int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      const float* x = floats_of(p.dtype, p.x, row * width, width, memory.first.floats(width));
      const float* branch = floats_of(p.dtype, p.branch, row * width, width, memory.second.floats(width));
      const FloatOutput output(p.dtype, p.output, row * width, width, memory.output.floats(width));
      for (int64_t c = 0; c < width; ++c) output.floats[c] = x[c] + branch[c] * gate[c];
      output.write();
    }
  });
}

void run(const GatedResidualBackward& p) {
  const int64_t width = p.width;
  const RowChunks chunks(p.rows, p.groups);
  thread_local Scratch gate_sums;
  const GroupSums dgates(chunks, width, p.dgate, gate_sums);
  parallel_for(chunks.count(), [&](int64_t chunk) {
    ResidualScratch& memory = scratch();
    const float* gate = p.gate + chunks.group(chunk) * width;
    float* dgate = dgates.begin(chunk);
    for (int64_t row = chunks.begin(chunk); row < chunks.end(chunk); ++row) {
      const float* branch = floats_of(p.dtype, p.branch, row * width, width, memory.first.floats(width));
      const float* doutput = floats_of(p.dtype, p.doutput, row * width, width, memory.second.floats(width));
      const FloatOutput dbranch(p.dtype, p.dbranch, row * width, width, memory.output.floats(width));
      for (int64_t c = 0; c < width; ++c) {
        dgate[c] += doutput[c] * branch[c];
        dbranch.floats[c] = doutput[c] * gate[c];
      }
      dbranch.write();
    }
  });
  dgates.finish();
}

}  // namespace vsa::cpu
