#include "cpu/chunks.h"
#include "cpu/float_rows.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"

namespace vsa::cpu {

void run(const ActivationForward& p) {
  const Kernels& kernel = kernels();
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float room[2][kBlockElements];
    const float* x = floats_of(p.dtype, p.x, begin, count, room[0]);
    FloatOutput output(p.dtype, p.output, begin, count, room[1]);
    kernel.activation_forward(p.kind, count, x, output.floats);
    output.write();
  });
}

void run(const ActivationBackward& p) {
  const Kernels& kernel = kernels();
  for_blocks(p.count, [&](int64_t begin, int64_t count) {
    alignas(64) float room[3][kBlockElements];
    const float* x = floats_of(p.dtype, p.x, begin, count, room[0]);
    const float* doutput = floats_of(p.dtype, p.doutput, begin, count, room[1]);
    FloatOutput dx(p.dtype, p.dx, begin, count, room[2]);
    kernel.activation_backward(p.kind, count, x, doutput, dx.floats);
    dx.write();
  });
}

}  // namespace vsa::cpu
