#include <algorithm>

#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/token_rows.h"

namespace vsa::cpu {

void run(const PoolingForward& p) {
  const int64_t tiles = p.grid.total_tiles(), width = p.H * p.D;
  parallel_for(p.B * tiles, [&](int64_t item) {
    thread_local Scratch scratch;
    const HeadRows x(p.dtype, p.x, item / tiles, p.grid.rows(p.order), 1, 0, width);
    const TileRows tile(p.grid, p.order, item % tiles);
    float* token = scratch.floats(width);
    float* mean = p.output + item * width;
    std::fill_n(mean, width, 0.0f);
    for (int i = 0; i < tile.count; ++i) {
      kernels().to_float(p.dtype, width, x.at(tile.row[i]), token);
      for (int64_t c = 0; c < width; ++c) mean[c] += token[c];
    }
    const float count = static_cast<float>(tile.count);
    for (int64_t c = 0; c < width; ++c) mean[c] /= count;
  });
}

void run(const PoolingTogether& p) {
  for (int32_t i = 0; i < p.count; ++i) run(p.parts[i]);
}

void run(const PoolingBackward& p) {
  const int64_t tiles = p.grid.total_tiles(), width = p.H * p.D;
  parallel_for(p.B * tiles, [&](int64_t item) {
    thread_local Scratch scratch;
    const HeadRows dx(p.dtype, p.dx, item / tiles, p.grid.rows(p.order), 1, 0, width);
    const TileRows tile(p.grid, p.order, item % tiles);
    const float* gradient = p.doutput + item * width;
    float* share = scratch.floats(width);
    const float count = static_cast<float>(tile.count);
    for (int64_t c = 0; c < width; ++c) share[c] = gradient[c] / count;
    for (int i = 0; i < tile.count; ++i) kernels().from_float(p.dtype, width, share, dx.at(tile.row[i]));
    dx.clear_padding(tile);
  });
}

}  // namespace vsa::cpu
