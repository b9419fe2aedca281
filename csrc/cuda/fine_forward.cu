#include <string>

#include "core/error.h"
#include "cuda/fine.h"
#include "cuda/sm90/fine_forward.h"

namespace vsa::cuda {

void launch(const FineForward& f, const Launch& on) {
  VSA_CHECK(f.Hkv > 0 && f.H % f.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(f.D == 64 || f.D == 96 || f.D == 128, "the head dim of fine attention on a GPU must be 64, 96 or 128");
  VSA_CHECK(f.lists.rows == f.q_grid.total_tiles() && f.lists.columns == f.kv_grid.total_tiles(),
            "lists must fit the grids");
  if (f.kernels != Kernels::portable) {
    const char* const why = sm90::refuses(f, on);
    if (why == nullptr) return sm90::launch_fine_forward(f, on);
    if (f.kernels == Kernels::sm90)
      throw Error("ERR_BACKEND", std::string("backend: got 'sm90', wanted 'cuda' or 'auto': ") + why);
  }
  f.dtype == DType::float32 ? launch_fine_forward_f32(f, on) : launch_fine_forward_16(f, on);
  if (f.combined != nullptr) launch(combination_of(f), on);
}

void launch_fine_forward_16(const FineForward& f, const Launch& launch) {
  f.dtype == DType::bfloat16 ? launch_fine_forward_bf16(f, launch) : launch_fine_forward_fp16(f, launch);
}

}  // namespace vsa::cuda
