#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/check.h"
#include "cuda/kernel_attributes.h"
#include "cuda/sm90/fine_forward.h"
#include "cuda/sm90/fine_forward_prepare.h"
#include "cuda/sm90/merge_lists.cuh"
#include "cuda/sm90/tensor_map.h"
#include "cuda/vectors.cuh"

namespace vsa::cuda::sm90 {
namespace {

constexpr int32_t kLongRatio = 2;  // lists longer than this many times the mean are taken first

int32_t bit_words(const FineForward& f) {
  return static_cast<int32_t>((f.kv_grid.total_tiles() + 31) / 32);
}

int merge_memory(const FineForward& f, int members) {
  return kMergeWarps * members * bit_words(f) * static_cast<int>(sizeof(uint32_t));
}

double mean_length(const FineForward& f) {
  const bool full = f.lists.offsets == nullptr;
  return full ? static_cast<double>(f.lists.columns)
              : static_cast<double>(f.lists.count) / static_cast<double>(f.B * f.H * f.lists.rows);
}

void set_tensors(FineForwardArgs& a, const FineForward& f) {
  if (f.order == Order::grid) {
    a.q_boxes = grid_boxes(f.dtype, f.q, f.q_grid, f.B, f.H, f.D);
    a.k_boxes = grid_boxes(f.dtype, f.k, f.kv_grid, f.B, f.Hkv, f.D);
    a.v_boxes = grid_boxes(f.dtype, f.v, f.kv_grid, f.B, f.Hkv, f.D);
  } else {
    a.q = tile_map(f.dtype, f.q, f.B * f.q_grid.slots(), f.H, f.D);
    a.k = tile_map(f.dtype, f.k, f.B * f.kv_grid.slots(), f.Hkv, f.D);
    a.v = tile_map(f.dtype, f.v, f.B * f.kv_grid.slots(), f.Hkv, f.D);
  }
}

// Scratch of merged lists; the merge itself is part of the same launch as the clean copies.
void set_lists(FineForwardArgs& a, MergeArgs& m, const FineForward& f, const Grouping& grouping, const Launch& on) {
  m.offsets = f.lists.offsets, m.indices = f.lists.indices;
  m.groups = a.groups, m.merge_blocks = (a.groups + kMergeWarps - 1) / kMergeWarps;
  // Parts are all short.
  const double limit = grouping.parts > 1 ? INT32_MAX : kLongRatio * (mean_length(f) + 1);
  m.limit = a.limit = static_cast<int32_t>(std::min<double>(INT32_MAX, limit));
  const size_t header = grouping.members == 2 ? sizeof(PairLists) : sizeof(TripleLists);
  a.lists = m.lists = on.scratch(static_cast<int64_t>(header) * a.groups);
  a.entries = m.entries = on.scratch_of<int32_t>(std::max<int64_t>(f.lists.count, 1));
  static_assert(sizeof(Schedule) <= Launch::kCounterBytes, "the counters are the schedule");
  a.schedule = m.schedule = reinterpret_cast<Schedule*>(on.counters);
  a.long_groups = m.long_groups = on.scratch_of<int32_t>(a.groups);
}

// Clean copies of v's partial tiles. In grid order there are none: what boxes have beyond the grid are zeros.
void set_clean_copies(FineForwardArgs& a, MergeArgs& m, const FineForward& f, const Launch& on) {
  const int64_t row_bytes = f.Hkv * f.D * size_of(f.dtype), rows = f.B * a.classes.partial * kTileVolume;
  m.v = static_cast<const uint4*>(f.v), m.v_clean = static_cast<uint4*>(on.scratch(rows * row_bytes));
  m.vectors = static_cast<int32_t>(row_bytes / 16);
  a.v_clean = tile_map(f.dtype, m.v_clean, rows, f.Hkv, f.D);
}

}  // namespace

const char* refuses(const FineForward& f, const Launch& on) {
  if (on.capability != 90) return "the GPU is not of compute capability 9.0 (Hopper)";
#if !defined(VSA_WITH_SM90A)
  return "this build has no code for sm_90a";
#endif
  if (f.dtype != DType::bfloat16 && f.dtype != DType::float16) return "the dtype is neither bfloat16 nor float16";
  if (f.D != 64 && f.D != 128) return "the head dim is neither 64 nor 128";
  if (!(f.scale > 0)) return "the scale is not more than 0";
  if (!aligned_to_16({f.q, f.k, f.v, f.output, f.coarse, f.coarse_gate, f.fine_gate, f.combined})) {
    return "a tensor is not aligned to 16 bytes";
  }
  if (f.kv_grid.total_tiles() == 0) return "there are no key tiles";
  if (f.kv_grid.total_tiles() > kTileMask) return "there are 2^24 key tiles or more";
  const int64_t rows = f.B * std::max(f.q_grid.slots(), f.kv_grid.slots());
  if (rows > INT32_MAX || f.B * f.H * f.q_grid.total_tiles() > INT32_MAX) return "there are 2^31 rows or more";
  if (merge_memory(f, 3) > on.shared_memory) return "rows of bits of the lists do not fit into shared memory";
  return nullptr;
}

Grouping grouping_of(const FineForward& f, int sm_count) {
  constexpr int kMostParts = 8, kFewestTiles = 4;
  const int64_t heads = f.B * f.H, tiles = f.q_grid.total_tiles();
  const int64_t pairs = heads * ((tiles + 1) / 2), triples = heads * ((tiles + 2) / 3);
  const int64_t workers = f.D == 64 ? 2 * sm_count : sm_count;
  if (pairs < workers) {
    const int64_t parts = std::min<int64_t>(workers / pairs, static_cast<int64_t>(mean_length(f)) / kFewestTiles);
    return {2, static_cast<int>(std::clamp<int64_t>(parts, 1, kMostParts))};
  }
  // Quads need all tiles: fewer in common, and their one ring is what holds them up.
  if (f.D == 64) return {f.lists.offsets == nullptr && heads * ((tiles + 3) / 4) >= sm_count ? 4 : 2, 1};
  // Rounds of the GPU, in tiles: triples take three tiles at 1.04 to 1.1 times the pairs' rate.
  const int64_t with_triples = (triples + sm_count - 1) / sm_count * 3,
                with_pairs = (pairs + sm_count - 1) / sm_count * 2;
  return {static_cast<double>(with_triples) <= 1.06 * static_cast<double>(with_pairs) ? 3 : 2, 1};
}

FineForwardArgs prepare_fine_forward(const FineForward& f, const Grouping& grouping, const Launch& on) {
  FineForwardArgs a{};
  a.q_layout = TileLayout(f.q_grid, f.order);
  const TileLayout kv_layout(f.kv_grid, f.order);
  a.classes = TileClasses(kv_layout);
  a.H = static_cast<int32_t>(f.H), a.group = static_cast<int32_t>(f.H / f.Hkv);
  a.q_tiles = a.q_layout.tiles, a.kv_tiles = kv_layout.tiles;
  a.groups_a_head = (a.q_tiles + grouping.members - 1) / grouping.members;
  a.groups = static_cast<int32_t>(f.B * f.H) * a.groups_a_head;
  a.parts = grouping.parts;
  a.scale = static_cast<float>(static_cast<double>(f.scale) * 1.4426950408889634);
  a.output = f.output, a.lse = f.lse;
  a.coarse = f.coarse, a.coarse_gate = f.coarse_gate, a.fine_gate = f.fine_gate, a.combined = f.combined;
  set_tensors(a, f);
  if (a.parts > 1) {
    const int64_t query_tiles = int64_t{2} * a.groups, numbers = (f.D / 2 + 4) * 128;
    a.partial = on.scratch_of<float>(query_tiles * a.parts * numbers);
    a.arrived = on.zeroed_of<int32_t>(query_tiles);
  }

  MergeArgs m{};
  m.classes = a.classes;
  m.q_tiles = a.q_tiles, m.kv_tiles = a.kv_tiles, m.words = bit_words(f);
  m.groups_a_head = a.groups_a_head;
  if (f.lists.offsets != nullptr) set_lists(a, m, f, grouping, on);
  int64_t blocks = m.merge_blocks;
  if (a.classes.partial > 0 && f.order == Order::tiled) {
    set_clean_copies(a, m, f, on);
    blocks += f.B * a.kv_tiles;
  }
  if (blocks > 0) {
    VSA_CHECK(blocks <= INT32_MAX, "too large a problem for one launch");
    const auto merge = grouping.members != 3 ? merge_lists<2> : merge_lists<3>;
    const int memory = merge_memory(f, grouping.members);
    allow_shared_memory(merge, memory, "merge_lists");
    launch_beside(merge, "merge_lists", on, dim3(static_cast<unsigned>(blocks)), 32 * kMergeWarps,
                  static_cast<size_t>(memory), m);
  }
  return a;
}

}  // namespace vsa::cuda::sm90
