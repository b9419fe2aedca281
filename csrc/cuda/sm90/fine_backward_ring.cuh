#pragma once

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"
#include "cuda/sm90/fine_backward_args.cuh"
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

template <int D, int kSlots_>
struct Ring {
  static constexpr int kSlots = kSlots_;
  alignas(1024) unsigned char tiles[kSlots][2][kTileBytes<D>];
  alignas(16) float statistics[kSlots][2][kTileVolume];  // of query tiles: lse in log2 units, delta
  alignas(16) SlotInfo info[kSlots];
  alignas(16) KeptItem kept[16];  // by warp of the block
  uint64_t full[kSlots];          // 1 arrival and the bytes
  uint64_t empty[kSlots];         // 1 arrival of every consumer warp

  // For kernels whose stationary tiles stay in shared memory, in a place of their own (Resident).
  uint64_t resident_full;   // 1 arrival and the bytes
  uint64_t resident_empty;  // 1 arrival of every consumer warp

  __device__ __forceinline__ void init(int consumer_warps) {
    ptx::mbarrier_init(&resident_full, 1), ptx::mbarrier_init(&resident_empty, consumer_warps);
    for (int i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(&full[i], 1), ptx::mbarrier_init(&empty[i], consumer_warps);
    }
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
template <int D, int kSlots>
struct Reader {
  Ring<D, kSlots>& ring;
  const int consumer;  // which warpgroup
  Cursor<kSlots> at;

  __device__ __forceinline__ Reader(Ring<D, kSlots>& ring_, int consumer_) : ring(ring_), consumer(consumer_) {}

  // What lane 0 reads, which is also the one that gives slots back: compute-sanitizer's racecheck does not follow what
  // __syncwarp orders. And the compiler knows that all lanes have the same.
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
  __device__ __forceinline__ int next() { return next_with_class() & 0xff; }
  __device__ __forceinline__ int32_t steps(int slot) const { return read(ring.info[slot].steps); }
  // This warp is done with a slot: its products have been waited for, its other reads are before this in program
  // order.
  __device__ __forceinline__ void release(int slot) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(&ring.empty[slot]);
  }
  __device__ __forceinline__ void keep(int slot) {
    const SlotInfo& info = ring.info[slot];
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
