#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>

#include "cuda/sm90/fine_backward.h"
#include "cuda/sm90/fine_backward_args.cuh"

namespace vsa::cuda::sm90 {
namespace fine_backward {
namespace {

// The table of a sequence's tiles, where one is needed.
TileSource* sources_memory(const TileGrid& grid, Order order, const Launch& launch) {
  if (order == Order::tiled && grid.length() == grid.slots()) return nullptr;
  return launch.scratch_of<TileSource>(grid.total_tiles());
}

// Memory for a plan, but for merged lists.
Plan plan_memory(int group_tiles, int64_t tiles, int64_t batch_heads, int64_t workers, int64_t max_parts, int64_t D,
                 const Launch& launch) {
  Plan plan = {};
  plan.workers = static_cast<int32_t>(workers), plan.max_parts = static_cast<int32_t>(max_parts);
  plan.group_tiles = group_tiles, plan.groups = static_cast<int32_t>((tiles + group_tiles - 1) / group_tiles);
  int32_t* counters = launch.scratch_of<int32_t>(3);
  plan.next = counters, plan.item_count = counters + 1, plan.split_count = counters + 2;
  plan.items = launch.scratch_of<Item>(batch_heads * plan.groups + max_parts);
  if (max_parts > 0) {
    plan.splits = launch.scratch_of<Split>(max_parts / 2);
    plan.parts = launch.scratch_of<float>(max_parts * 2 * kTileVolume * D);
  }
  return plan;
}

// Parts that lists may have in all, or 0 where no list can be long enough to be split (make_plan has the rule: those
// longer than 1.25 parts, so there are at most 1.8 parts for each part's worth of entries, of which a worker's share is
// one).
int64_t most_parts(const FineBackward& p, int64_t workers) {
  const int64_t longest = p.H / p.Hkv * p.q_grid.total_tiles();
  const int64_t entries =
      p.lists.offsets == nullptr ? p.B * p.Hkv * p.kv_grid.total_tiles() * longest : p.transposed.count;
  const int64_t shortest = std::max<int64_t>(kShortestPart, entries / workers);
  const int64_t parts = std::min(2 * workers, 2 * entries / kShortestPart);
  return longest > shortest + shortest / 4 && parts >= 2 ? parts : 0;
}

// Whether dK and dV go by pairs of key tiles: lists are full, hence equal, and blocks have enough to do without parts.
bool pairs_key_tiles(const FineBackward& p, int64_t blocks) {
  const int64_t pairs = (p.kv_grid.total_tiles() + kTeams - 1) / kTeams;
  return p.lists.offsets == nullptr && p.B * p.Hkv * pairs >= 8 * blocks;
}

Args make_args(const FineBackward& p, const Launch& launch) {
  Args args = {};
  args.B = static_cast<int32_t>(p.B), args.H = static_cast<int32_t>(p.H), args.Hkv = static_cast<int32_t>(p.Hkv);
  args.group = static_cast<int32_t>(p.H / p.Hkv);
  args.q_layout = TileLayout(p.q_grid, p.order), args.kv_layout = TileLayout(p.kv_grid, p.order);
  args.q_classes = TileClasses(args.q_layout), args.kv_classes = TileClasses(args.kv_layout);
  args.scale = p.scale, args.scale_log2 = static_cast<float>(p.scale * M_LOG2E);
  args.offsets = p.lists.offsets, args.indices = p.lists.indices;
  args.t_offsets = p.transposed.offsets, args.t_indices = p.transposed.indices;
  args.output = p.output, args.doutput = p.doutput, args.lse = p.lse;
  args.dq_pooled = p.dq_pooled, args.dk_pooled = p.dk_pooled, args.dv_pooled = p.dv_pooled;
  args.delta = p.delta, args.delta_ready = p.delta_ready, args.dq = p.dq, args.dk = p.dk, args.dv = p.dv;
  const int64_t q_tiles = args.q_layout.tiles, kv_tiles = args.kv_layout.tiles, heads = p.B * p.H;
  if (p.order == Order::tiled) {
    args.lse_of_slots = const_cast<float*>(p.lse), args.delta_of_slots = p.delta;
  } else {
    args.lse_of_slots = launch.scratch_of<float>(heads * q_tiles * kTileVolume);
    args.delta_of_slots = launch.scratch_of<float>(heads * q_tiles * kTileVolume);
  }
  args.has_rows = p.order == Order::grid || !p.delta_ready;
  args.q_sources = sources_memory(p.q_grid, p.order, launch);
  args.kv_sources = sources_memory(p.kv_grid, p.order, launch);
  const int64_t blocks = launch.sm_count, teams = kTeams * blocks;
  args.dkdv = pairs_key_tiles(p, blocks)
                  ? plan_memory(kTeams, kv_tiles, p.B * p.Hkv, blocks, 0, p.D, launch)
                  : plan_memory(1, kv_tiles, p.B * p.Hkv, teams, most_parts(p, teams), p.D, launch);
  args.dq_plan = plan_memory(kQueryTiles, q_tiles, heads, launch.sm_count, 0, p.D, launch);
  if (p.lists.offsets != nullptr) {
    args.dq_plan.merged = launch.scratch_of<int32_t>(std::max<int64_t>(p.lists.count, 1));
    args.dq_plan.merged_counts = launch.scratch_of<int32_t>(heads * args.dq_plan.groups);
  }
  return args;
}

// The maps of a tensor; those that no tile has stay empty.
template <int kMaps>
void make_maps(CUtensorMap (&maps)[kMaps], const FineBackward& p, const TileGrid& grid, int64_t heads,
               const void* tensor) {
  for (int i = 0; i < std::min(kMaps, p.order == Order::grid ? kGridMaps : kTiledMaps); ++i) {
    if (has_slot_boxes(grid, p.order, i)) maps[i] = slot_boxes(p.dtype, tensor, grid, p.order, i, p.B, heads, p.D);
  }
}

template <typename T>
void launch_typed(const FineBackward& p, const Launch& launch) {
  const Args args = make_args(p, launch);
  Maps dkdv = {}, dq = {};
  make_maps(dkdv.stationary[0], p, p.kv_grid, p.Hkv, p.k), make_maps(dkdv.stationary[1], p, p.kv_grid, p.Hkv, p.v);
  make_maps(dkdv.streaming[0], p, p.q_grid, p.H, p.q), make_maps(dkdv.streaming[1], p, p.q_grid, p.H, p.doutput);
  make_maps(dq.stationary[0], p, p.q_grid, p.H, p.q), make_maps(dq.stationary[1], p, p.q_grid, p.H, p.doutput);
  make_maps(dq.streaming[0], p, p.kv_grid, p.Hkv, p.k), make_maps(dq.streaming[1], p, p.kv_grid, p.Hkv, p.v);
  p.D == 128 ? launch_kernels<T, 128>(args, dkdv, dq, launch) : launch_kernels<T, 64>(args, dkdv, dq, launch);
}

}  // namespace
}  // namespace fine_backward

const char* refuses(const FineBackward& p, const Launch& launch) {
  constexpr int64_t kMostTiles = int64_t{1} << 29;  // merged lists have tiles << 2
  const auto rows = [](int64_t batch_heads, const TileGrid& grid) { return batch_heads * grid.slots(); };
  if (launch.capability != 90) return "the GPU is not of compute capability 9.0 (Hopper)";
#if !defined(VSA_WITH_SM90A)
  return "this build has no code for sm_90a";
#endif
  if (p.dtype != DType::bfloat16 && p.dtype != DType::float16) return "the dtype is neither bfloat16 nor float16";
  if (p.D != 64 && p.D != 128) return "the head dim is neither 64 nor 128";
  for (const void* tensor : {p.q, p.k, p.v, p.output, p.doutput, static_cast<const void*>(p.dq),
                             static_cast<const void*>(p.dk), static_cast<const void*>(p.dv)}) {
    if (reinterpret_cast<uintptr_t>(tensor) % 16 != 0) return "a tensor is not aligned to 16 bytes";
  }
  if (p.q_grid.total_tiles() == 0 || p.kv_grid.total_tiles() == 0) return "there are no queries or no keys";
  if (std::max(p.q_grid.total_tiles(), p.kv_grid.total_tiles()) >= kMostTiles) return "there are 2^29 tiles or more";
  if (std::max(rows(p.B * p.H, p.q_grid), rows(p.B * p.Hkv, p.kv_grid)) > INT32_MAX) {
    return "there are 2^31 rows or more in all heads";
  }
  return nullptr;
}

void launch_fine_backward(const FineBackward& p, const Launch& launch) {
  p.dtype == DType::bfloat16 ? fine_backward::launch_typed<__nv_bfloat16>(p, launch)
                             : fine_backward::launch_typed<__half>(p, launch);
}

}  // namespace vsa::cuda::sm90
