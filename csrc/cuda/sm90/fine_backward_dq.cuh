#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/sm90/fine_backward_stream.cuh"
#include "cuda/sm90/fine_backward_tile.cuh"
#include "cuda/sm90/ptx/registers.h"

namespace vsa::cuda::sm90::fine_backward {

template <int D, int kSlots>
struct DqShared {
  Ring<D, kSlots, kQueryTiles> ring;
};

// dQ by query tile: two consumer warpgroups have a query tile each, neighbours in memory, and go through the union of
// their lists; each key tile is loaded once. Over its list, a consumer does
//   S = Q K^T, P = exp2(S scale_log2 - lse log2(e)), dP = dO V^T, dS = P (dP - delta), dQ += dS K
// with Q and dO in registers as A operands, and dS from the accumulators straight into the A of the third product,
// which is issued behind the next tile's first two and runs while P and dS are worked out. A consumer then holds two
// slots, three while it waits for the next one; so lists must let it find its next tile within the others
// (merge_lists). D = 64 looks for that as soon as products are issued; with the few slots of D = 128 it would often
// wait before it has worked out anything. D = 128 takes all registers that a consumer can have.
template <typename T, int D, int kSlots>
__global__ void __launch_bounds__((kQueryTiles + 1) * kWarpgroup, 1)
    fine_backward_dq(const __grid_constant__ Maps maps, const __grid_constant__ Args p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)  // other architectures of the build get an empty kernel
  constexpr bool kAhead = D == 64;
  static_assert(kSlots >= (kAhead ? 6 : 4), "or the ring fills up while slots are held");
  using Shared = DqShared<D, kSlots>;
  using Feed = Stream<D, kQueryTiles, true, false>;
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);

  if (threadIdx.x == 0) {
    shared.ring.init();
    ::cuda::ptx::fence_mbarrier_init(::cuda::ptx::sem_release, ::cuda::ptx::scope_cluster);
  }
  __syncthreads();
  ptx::dependent_launch();

  if (warpgroup == 0) {
    ptx::registers_decrease<D == 128 ? 24 : 40>();
    if (threadIdx.x < 32) produce<Feed>(shared.ring, 1, static_cast<Resident<D>*>(nullptr), maps, p);
    ptx::dependent_launch_wait();  // so that what follows this kernel follows dK and dV too
    return;
  }
  ptx::registers_increase<D == 128 ? 240 : 232>();
  Reader reader(shared.ring, warpgroup - 1, 1);
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 % 4 * 16 + lane / 4;

  while (true) {
    uint32_t q[D / 4], doutput[D / 4];
    float lse[2], delta[2];
    const int stationary = reader.next_with_class() & 0xff;
    const int steps = reader.steps(stationary);
    if (steps == kStop) break;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      lse[r] = ptx::to_log2(shared.ring.statistics[stationary][0][row + r * 8]);
      delta[r] = shared.ring.statistics[stationary][1][row + r * 8];
    }
    load_fragments<D>(q, reader.tile(stationary, 0));
    load_fragments<D>(doutput, reader.tile(stationary, 1));
    reader.keep(shared.ring.info[stationary]);
    if (steps == 0) reader.release(stationary);  // nobody wants what was loaded

    float sums[D / 2], s[32], dp[32];
    uint32_t ds[16];
#pragma unroll
    for (int i = 0; i < D / 2; ++i) sums[i] = 0.0f;

    const auto work_out = [&] {  // dS in s
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int r = i / 2 % 2;
        s[i] = ptx::exp2(s[i] * p.scale_log2 - lse[r]) * (dp[i] - delta[r]);
      }
    };
    const auto mask = [&](int tile_class) {  // keys of padding: their S, dP may be anything
      if (tile_class != 0) {
        const uint64_t columns = p.kv_classes.valid[tile_class] >> (lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 32; ++i) s[i] = columns >> (i / 4 * 8 + i % 2) & 1 ? s[i] : 0.0f;
      }
    };

    if (steps > 0) {
      int found = reader.next_with_class(), slot = found & 0xff, tile_class = found >> 8;
      ptx::touch(s), ptx::touch(dp), ptx::touch(q), ptx::touch(doutput);
      ptx::wgmma_fence();
      multiply<T, D>(s, q, reader.tile(slot, 0));
      multiply<T, D>(dp, doutput, reader.tile(slot, 1));
      ptx::wgmma_commit();
      if (kAhead && steps > 1) found = reader.next_with_class();
      ptx::wgmma_wait<0>();
      ptx::touch(s), ptx::touch(dp);
      work_out();
      reader.release(stationary);  // all that was loaded from it has been used
      mask(tile_class);
      pack_sums<T>(ds, s);
      ptx::touch(ds);
#pragma unroll 1
      for (int step = 1; step < steps; ++step) {
        if (!kAhead) found = reader.next_with_class();
        const int following = found & 0xff;
        tile_class = found >> 8;
        ptx::touch(s), ptx::touch(dp), ptx::touch(ds), ptx::touch(sums);
        ptx::wgmma_fence();
        multiply<T, D>(s, q, reader.tile(following, 0));
        multiply<T, D>(dp, doutput, reader.tile(following, 1));
        ptx::wgmma_commit();
        accumulate<T, D>(sums, ds, reader.tile(slot, 0));
        ptx::wgmma_commit();
        if (kAhead && step + 1 < steps) found = reader.next_with_class();
        ptx::wgmma_wait<1>();
        ptx::touch(s), ptx::touch(dp);
        work_out();
        ptx::wgmma_wait<0>();
        ptx::touch(sums), ptx::touch(ds);
        reader.release(slot);
        mask(tile_class);
        pack_sums<T>(ds, s);
        ptx::touch(ds);
        slot = following;
      }
      ptx::touch(ds);
      ptx::wgmma_fence();
      accumulate<T, D>(sums, ds, reader.tile(slot, 0));
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();
      ptx::touch(sums), ptx::touch(ds);
      reader.release(slot);
    }
    const auto [tile, head, b, part] = reader.kept();
    if (tile < 0) continue;
    if (p.dq == p.doutput) ptx::dependent_launch_wait();  // dK and dV read dO to their end
    store_tile<T, D>(sums, p.scale, p.q_layout, p.dq_pooled, p.dq, b, tile, head, p.H);
  }
#endif
}

}  // namespace vsa::cuda::sm90::fine_backward
