#include <cmath>
#include <string>

#include "cuda/check.h"
#include "cuda/fine.h"
#include "cuda/fine_backward_args.cuh"
#include "cuda/sm90/fine_backward.h"

namespace vsa::cuda {
namespace {

fine_backward::Args make_args(const FineBackward& p, const Launch& launch) {
  fine_backward::Args args = {};
  args.B = static_cast<int32_t>(p.B), args.H = static_cast<int32_t>(p.H), args.Hkv = static_cast<int32_t>(p.Hkv);
  args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.q_layout = TileLayout(p.q_grid, p.order), args.kv_layout = TileLayout(p.kv_grid, p.order);
  args.scale = p.scale, args.scale_log2 = static_cast<float>(p.scale * M_LOG2E);
  args.offsets = p.lists.offsets, args.indices = p.lists.indices;
  args.t_offsets = p.transposed.offsets, args.t_indices = p.transposed.indices;
  args.q = p.q, args.output = p.output, args.doutput = p.doutput, args.k = p.k, args.v = p.v, args.lse = p.lse;
  args.dq_pooled = p.dq_pooled, args.dk_pooled = p.dk_pooled, args.dv_pooled = p.dv_pooled;
  args.delta = p.delta, args.delta_ready = p.delta_ready, args.dq = p.dq, args.dk = p.dk, args.dv = p.dv;
  if (p.order == Order::tiled) {
    args.lse_of_slots = const_cast<float*>(p.lse), args.delta_of_slots = p.delta;
  } else {
    args.lse_of_slots = launch.scratch_of<float>(p.B * p.H * args.q_layout.tiles * kTileVolume);
    args.delta_of_slots = launch.scratch_of<float>(p.B * p.H * args.q_layout.tiles * kTileVolume);
  }
  args.has_rows = p.order == Order::grid || !p.delta_ready;
  return args;
}

}  // namespace

void launch_fine_backward_16(const FineBackward& p, const Launch& launch) {
  const fine_backward::Args args = make_args(p, launch);
  if (p.dtype == DType::bfloat16) {
    fine_backward::launch_typed<__nv_bfloat16>(args, p.D, launch);
  } else {
    fine_backward::launch_typed<__half>(args, p.D, launch);
  }
}

void launch(const FineBackward& p, const Launch& launch) {
  VSA_CHECK(p.Hkv > 0 && p.H % p.Hkv == 0, "the number of heads must be a multiple of that of key heads");
  VSA_CHECK(p.H * p.D <= INT32_MAX, "a token's heads must have fewer than 2^31 elements");
  if (p.B == 0 || p.H == 0) return;
  if (p.kernels != Kernels::portable) {
    const char* const why = sm90::refuses(p, launch);
    if (why == nullptr) return sm90::launch_fine_backward(p, launch);
    if (p.kernels == Kernels::sm90) {
      throw Error("ERR_BACKEND", std::string("backend: got 'sm90', wanted 'cuda' or 'auto': ") + why);
    }
  }
  if (p.dtype == DType::float32) {
    launch_fine_backward_f32(p, launch);
  } else {
    launch_fine_backward_16(p, launch);
  }
}

}  // namespace vsa::cuda
