#pragma once

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"
#include "cuda/ptx/named_barrier.h"
#include "cuda/sm90/fine_backward_args.cuh"
#include "cuda/sm90/fine_backward_barrier.cuh"
#include "cuda/sm90/ptx/mbarrier.h"

// The ring of shared memory through which tiles reach the consumers, in both passes.
//
// A slot holds a tile of each of two tensors, and what is known of them. One stream runs through the ring, item after
// item: first the item's stationary tiles (one slot for each tile of its group), which consumers copy to registers,
// then the tiles of its list; a stop ends it. So the next item's tiles are on their way while this one is being
// finished.
//
// Every warp of every consumer waits for every slot in order, and gives it back once, whether it needs it or not. So
// no warp can be a phase away from any barrier, and no slot is refilled while some warp still reads anything in it.
//
// Slots are given back through named barriers, one a slot: an arrival counts all lanes of a warp, costs one
// instruction, and compute-sanitizer's racecheck understands it (of an mbarrier it follows only the lane that arrives).
namespace vsa::cuda::sm90::fine_backward {

inline constexpr int kWarpgroup = 128;  // threads

// A 64 x D tile: panels of 64 columns, 64 rows of 128 bytes each, 16-byte chunks permuted by the row.
template <int D>
inline constexpr uint32_t kTileBytes = D / 64 * kPanelBytes;

enum : int32_t { kStop = -1, kListTile = -2 };  // in SlotInfo::steps

// What the producer says of a slot.
struct SlotInfo {
  int32_t who;    // bit w: consumer w needs it; the tile's class << 8
  int32_t steps;  // stationary: how many slots of the list the consumer will need; else kListTile or kStop
  int32_t tile;   // -1: there is none (the last group of a head may be short)
  int32_t head;   // of the tensor that the tile is in
  int32_t b;
  int32_t part;  // Item::part
};

// What a consumer must remember of its item until the end: in shared memory, a copy for each warp, for want of
// registers.
struct KeptItem {
  int32_t tile, head, b, part;
};

template <int D, int kSlots_, int kConsumers>
struct Ring {
  static constexpr int kSlots = kSlots_;
  static constexpr int kThreads = kConsumers * kWarpgroup + 32;  // at a slot's named barrier: the producer's warp too
  alignas(1024) unsigned char tiles[kSlots][2][kTileBytes<D>];
  alignas(16) float statistics[kSlots][2][kTileVolume];  // of query tiles: lse, delta
  alignas(16) SlotInfo info[kSlots];
  alignas(16) KeptItem kept[16];  // by warp of the block
  uint64_t full[kSlots];          // 1 arrival and the bytes

  // For kernels whose stationary tiles stay in shared memory, in a place of their own (Resident), and take no slot.
  SlotInfo resident_info;
  uint64_t resident_full;   // 1 arrival and the bytes
  uint64_t resident_empty;  // 1 arrival of every consumer warp

  __device__ __forceinline__ void init() {
    ptx::mbarrier_init(&resident_full, 1), ptx::mbarrier_init(&resident_empty, kConsumers * 4);
    for (int i = 0; i < kSlots; ++i) ptx::mbarrier_init(&full[i], 1);
  }
};

// A place in the stream: parity is that of the slot's phase.
template <int kSlots>
struct Cursor {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void advance() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

// A consumer's end of the ring.
template <typename Ring>
struct Reader {
  static constexpr int kSlots = Ring::kSlots;
  Ring& ring;
  const int consumer;       // which warpgroup
  const int first_barrier;  // that of slot 0
  Cursor<kSlots> at;

  __device__ __forceinline__ Reader(Ring& ring_, int consumer_, int first_barrier_)
      : ring(ring_), consumer(consumer_), first_barrier(first_barrier_) {
    for (int i = 0; i < kSlots; ++i) release(i);  // empty from the start
  }

  // What lane 0 reads: the compiler then knows that all lanes have the same.
  __device__ __forceinline__ int32_t read(const int32_t& x) const {
    int32_t value = 0;
    if (threadIdx.x % 32 == 0) value = x;
    return __shfl_sync(~0u, value, 0);
  }
  // The next slot that this consumer needs, and the class of the tile in it << 8; those before are given back.
  __device__ __forceinline__ int next_with_class() {
    while (true) {
      const int slot = at.slot;
      ptx::mbarrier_wait(&ring.full[slot], at.parity);
      at.advance();
      const int32_t who = read(ring.info[slot].who);
      if (who >> consumer & 1) return __shfl_sync(~0u, slot, 0) | (who & ~0xff);
      release(slot);
    }
  }
  // The next slot, where every consumer needs every slot.
  __device__ __forceinline__ int next() {
    const int slot = at.slot;
    ptx::mbarrier_wait(&ring.full[slot], at.parity);
    at.advance();
    return __shfl_sync(~0u, slot, 0);
  }
  __device__ __forceinline__ int32_t steps(int slot) const { return read(ring.info[slot].steps); }
  // This warp is done with a slot: its products have been waited for, and what it loaded has been used. Loaded alone is
  // not enough: an arrival at a named barrier does not wait for loads that are on their way, as one at an mbarrier
  // does.
  __device__ __forceinline__ void release(int slot) { ptx::named_barrier_arrive(first_barrier + slot, Ring::kThreads); }
  __device__ __forceinline__ void keep(const SlotInfo& info) {
    if (threadIdx.x % 32 == 0) ring.kept[threadIdx.x / 32] = {info.tile, info.head, info.b, info.part};
  }
  __device__ __forceinline__ KeptItem kept() const {
    const KeptItem& mine = ring.kept[threadIdx.x / 32];
    return {read(mine.tile), read(mine.head), read(mine.b), read(mine.part)};
  }
  __device__ __forceinline__ uint32_t tile(int slot, int which) const {
    return ptx::shared_address(ring.tiles[slot][which]);
  }
};

}  // namespace vsa::cuda::sm90::fine_backward
