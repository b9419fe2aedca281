#include <algorithm>

#include "core/error.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"
#include "cpu/scratch.h"
#include "cpu/token_rows.h"

// Both passes go over the tokens of a tile, all heads of a token at once: a row is H * D wide, and so is the row of
// the coarse output that all tokens of the tile share.
namespace vsa::cpu {
namespace {

struct CombinationScratch {
  Scratch result, fine, gate;
};

}  // namespace

void run(const CombinationForward& p) {
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  const int64_t tiles = p.grid.total_tiles(), rows = p.grid.rows(p.order), width = p.H * p.D;
  parallel_for(p.B * tiles, [&](int64_t item) {
    thread_local CombinationScratch scratch;
    const auto token_rows = [&](const void* x) { return HeadRows(p.dtype, x, item / tiles, rows, 1, 0, width); };
    const Kernels& kernel = kernels();
    const TileRows tile(p.grid, p.order, item % tiles);
    const HeadRows fine = token_rows(p.fine), output = token_rows(p.output);
    const float* coarse = p.coarse == nullptr ? nullptr : p.coarse + item * width;
    float* result = scratch.result.floats(width);
    float* gate = scratch.gate.floats(width);
    for (int i = 0; i < tile.count; ++i) {
      const int64_t row = tile.row[i];
      kernel.to_float(p.dtype, width, fine.at(row), result);
      if (p.fine_gate != nullptr) {
        kernel.to_float(p.dtype, width, token_rows(p.fine_gate).at(row), gate);
        for (int64_t c = 0; c < width; ++c) result[c] *= gate[c];
      }
      if (p.coarse_gate != nullptr) {
        kernel.to_float(p.dtype, width, token_rows(p.coarse_gate).at(row), gate);
        for (int64_t c = 0; c < width; ++c) result[c] += gate[c] * coarse[c];
      } else if (coarse != nullptr) {
        for (int64_t c = 0; c < width; ++c) result[c] += coarse[c];
      }
      kernel.from_float(p.dtype, width, result, output.at(row));
    }
    output.clear_padding(tile);
  });
}

void run(const CombinationBackward& p) {
  VSA_CHECK((p.coarse == nullptr) == (p.dcoarse == nullptr), "coarse and its gradient must come together");
  VSA_CHECK((p.coarse_gate == nullptr) == (p.dcoarse_gate == nullptr), "coarse gate and gradient must come together");
  VSA_CHECK((p.fine_gate == nullptr) == (p.dfine_gate == nullptr), "fine gate and gradient must come together");
  VSA_CHECK(p.coarse != nullptr || p.coarse_gate == nullptr, "a coarse gate needs a coarse output");
  VSA_CHECK(p.fine != nullptr || p.fine_gate == nullptr, "a fine gate needs the fine output");
  VSA_CHECK(p.delta == nullptr || (p.fine != nullptr && (p.fine_gate == nullptr || p.dfine != nullptr)),
            "delta needs the fine output and, beside a fine gate, its gradient");
  const int64_t tiles = p.grid.total_tiles(), rows = p.grid.rows(p.order), width = p.H * p.D;
  parallel_for(p.B * tiles, [&](int64_t item) {
    thread_local CombinationScratch scratch;
    const auto token_rows = [&](const void* x) { return HeadRows(p.dtype, x, item / tiles, rows, 1, 0, width); };
    const Kernels& kernel = kernels();
    const TileRows tile(p.grid, p.order, item % tiles);
    const HeadRows doutput = token_rows(p.doutput);
    float* gradient = scratch.fine.floats(width);
    float* factor = scratch.gate.floats(width);
    float* result = scratch.result.floats(width);
    float* dcoarse = p.dcoarse == nullptr ? nullptr : p.dcoarse + item * width;
    if (dcoarse != nullptr) std::fill_n(dcoarse, width, 0.0f);

    const auto delta_at = [&](int64_t h, int64_t row) -> float& {
      return p.delta[(item / tiles * p.H + h) * rows + row];
    };
    // result = doutput * factor, written to the row of `to`.
    const auto write_product = [&](const float* by, void* to, int64_t row) {
      for (int64_t c = 0; c < width; ++c) result[c] = gradient[c] * by[c];
      kernel.from_float(p.dtype, width, result, token_rows(to).at(row));
    };
    for (int i = 0; i < tile.count; ++i) {
      const int64_t row = tile.row[i];
      kernel.to_float(p.dtype, width, doutput.at(row), gradient);
      if (p.fine_gate != nullptr) {
        kernel.to_float(p.dtype, width, token_rows(p.fine).at(row), factor);
        write_product(factor, p.dfine_gate, row);
      }
      if (p.dfine != nullptr && p.fine_gate != nullptr) {
        kernel.to_float(p.dtype, width, token_rows(p.fine_gate).at(row), factor);
        write_product(factor, p.dfine, row);
      } else if (p.dfine != nullptr) {
        kernel.from_float(p.dtype, width, gradient, token_rows(p.dfine).at(row));
      }
      if (p.delta != nullptr) {  // of dfine as it was rounded
        const float* dfine = gradient;
        if (p.fine_gate != nullptr)
          kernel.to_float(p.dtype, width, token_rows(p.dfine).at(row), result), dfine = result;
        kernel.to_float(p.dtype, width, token_rows(p.fine).at(row), factor);
        for (int64_t h = 0; h < p.H; ++h) delta_at(h, row) = kernel.dot(p.D, factor + h * p.D, dfine + h * p.D);
      }
      if (p.coarse_gate != nullptr) {
        write_product(p.coarse + item * width, p.dcoarse_gate, row);
        kernel.to_float(p.dtype, width, token_rows(p.coarse_gate).at(row), factor);
        for (int64_t c = 0; c < width; ++c) dcoarse[c] += gradient[c] * factor[c];
      } else if (dcoarse != nullptr) {
        for (int64_t c = 0; c < width; ++c) dcoarse[c] += gradient[c];
      }
    }
    for (void* output : {p.dfine, p.dcoarse_gate, p.dfine_gate}) {
      if (output != nullptr) token_rows(output).clear_padding(tile);
    }
    for (int i = 0; p.delta != nullptr && i < tile.padding_count; ++i) {
      for (int64_t h = 0; h < p.H; ++h) delta_at(h, tile.padding[i]) = 0;
    }
  });
}

}  // namespace vsa::cpu
