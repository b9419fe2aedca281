#pragma once

#include "cuda/ptx/dependent_launch.h"
#include "cuda/sm90/fine_backward_stream.cuh"
#include "cuda/sm90/fine_backward_tile.cuh"
#include "cuda/sm90/ptx/registers.h"

namespace vsa::cuda::sm90::fine_backward {

// A stream of slots and who reads it: a team's own consumer, or both consumers of the block.
template <int D, int kSlots, bool kResident, int kConsumers>
struct TeamShared {
  Ring<D, kSlots, kConsumers> ring;
  Resident<D> resident[kResident ? kConsumers : 0];
};
template <int D, int kSlots, bool kResident, bool kPairs>
struct DkdvShared {
  TeamShared<D, kSlots, kResident, kPairs ? kTeams : 1> team[kPairs ? 1 : kTeams];
};

// dK and dV of a key tile by one warpgroup, all four products:
//   S^T = K Q^T, P^T = exp2(S^T scale_log2 - lse log2(e)), dP^T = V dO^T, dS^T = P^T (dP^T - delta),
//   dV += P^T dO, dK += dS^T Q.
// Two teams share an SM, each with items of its own, so that one multiplies while the other takes exponentials, begins
// an item or ends one. kPairs, where lists are full: one stream for both, which have neighbouring key tiles, so that a
// query tile is copied once for two.
//
// kResident: K and V stay in shared memory, but for some of K, for want of registers (D = 128), and a tile is finished
// before the next one begins. Else they are A operands in registers, and a tile's last two products are issued behind
// the next tile's first two.
template <typename T, int D, int kSlots, bool kResident, bool kPairs>
__global__ void __launch_bounds__((kTeams + 1) * kWarpgroup, 1)
    fine_backward_dkdv(const __grid_constant__ Maps maps, const __grid_constant__ Args p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)  // other architectures of the build get an empty kernel
  using Shared = DkdvShared<D, kSlots, kResident, kPairs>;
  using Feed = Stream<D, kPairs ? kTeams : 1, false, kResident>;
  extern __shared__ __align__(1024) unsigned char memory[];
  const int warpgroup = __shfl_sync(~0u, threadIdx.x / kWarpgroup, 0);
  Shared& all = *reinterpret_cast<Shared*>(memory);

  if (threadIdx.x == 0) {
    for (auto& team : all.team) team.ring.init();
    ::cuda::ptx::fence_mbarrier_init(::cuda::ptx::sem_release, ::cuda::ptx::scope_cluster);
  }
  __syncthreads();
  ptx::dependent_launch_wait();  // for the pre-pass
  ptx::dependent_launch();       // dQ needs nothing of this kernel: its blocks may come as these leave

  // kResident: consumers get all that copying warps can do without, for columns of K.
  if (warpgroup == 0) {
    ptx::registers_decrease<kResident ? 24 : 40>();
    const int number = __shfl_sync(~0u, threadIdx.x / 32, 0);
    if (number < (kPairs ? 1 : kTeams)) {
      auto& team = all.team[number];
      produce<Feed>(team.ring, 1 + number * kSlots, team.resident, maps, p);
    }
    return;
  }
  ptx::registers_increase<kResident ? 240 : 232>();
  const int consumer = kPairs ? warpgroup - 1 : 0, number = kPairs ? 0 : warpgroup - 1;
  auto& shared = all.team[number];
  Reader reader(shared.ring, consumer, 1 + number * kSlots);
  const int lane = threadIdx.x % 32;
  uint32_t resident_parity = 0;
  // Columns of K in registers. D = 128: as many as there is room for beside 192 sums. Each 16 of them spare shared
  // memory 2 KB a tile, and with all of K and V there it would have to deliver as many bytes as it can.
  constexpr int kHeld = kResident ? 80 : D;

  while (true) {
    uint32_t k[kHeld / 4], v[kResident ? 4 : D / 4];
    uint32_t own[2];  // shared memory of K and V
    int steps, stationary = 0;
    if constexpr (kResident) {
      ptx::mbarrier_wait(&shared.ring.resident_full, resident_parity);
      resident_parity ^= 1;
      steps = reader.read(shared.ring.resident_info.steps);
      if (steps == kStop) break;
      reader.keep(shared.ring.resident_info);
#pragma unroll
      for (int i = 0; i < 2; ++i) own[i] = ptx::shared_address(shared.resident[consumer].tiles[i]);
      load_fragments<kHeld>(k, own[0]);
    } else {
      if (kPairs && consumer == 1) reader.release(reader.next());  // the other's
      stationary = reader.next();
      steps = reader.steps(stationary);
      if (steps == kStop) break;
      load_fragments<D>(k, reader.tile(stationary, 0));
      load_fragments<D>(v, reader.tile(stationary, 1));
      reader.keep(shared.ring.info[stationary]);
      if (steps == 0) reader.release(stationary);  // nobody wants what was loaded
      if (kPairs && consumer == 0) reader.release(reader.next());
    }

    float dk[D / 2], dv[D / 2], s[32], dp[32];
    uint32_t probabilities[16], ds[16];
#pragma unroll
    for (int i = 0; i < D / 2; ++i) dk[i] = dv[i] = 0.0f;

    const auto multiply_s = [&](int slot) {
      if constexpr (kResident) {
        multiply<T, D>(s, k, own[0], reader.tile(slot, 0));
      } else {
        multiply<T, D>(s, k, reader.tile(slot, 0));
      }
    };
    const auto multiply_dp = [&](int slot) {
      if constexpr (kResident) {
        multiply<T, D>(dp, own[1], reader.tile(slot, 1));
      } else {
        multiply<T, D>(dp, v, reader.tile(slot, 1));
      }
    };
    const auto of_query = [&](int slot, int which, int i) {
      return *reinterpret_cast<const float2*>(shared.ring.statistics[slot][which] + lane % 4 * 2 + i * 8);
    };
    const auto make_p = [&](int slot) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float2 natural = of_query(slot, 0, i);
        const float2 lse = make_float2(ptx::to_log2(natural.x), ptx::to_log2(natural.y));
        s[4 * i] = ptx::exp2(s[4 * i] * p.scale_log2 - lse.x);
        s[4 * i + 1] = ptx::exp2(s[4 * i + 1] * p.scale_log2 - lse.y);
        s[4 * i + 2] = ptx::exp2(s[4 * i + 2] * p.scale_log2 - lse.x);
        s[4 * i + 3] = ptx::exp2(s[4 * i + 3] * p.scale_log2 - lse.y);
      }
      const int32_t tile_class = shared.ring.info[slot].who >> 8;
      if (tile_class != 0) {  // queries of padding: Q and dO are 0, but P is inf where lse is -inf
        const uint64_t queries = p.q_classes.valid[tile_class] >> (lane % 4 * 2);
#pragma unroll
        for (int i = 0; i < 32; ++i) s[i] = queries >> (i / 4 * 8 + i % 2) & 1 ? s[i] : 0.0f;
      }
    };
    const auto make_ds = [&](int slot) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float2 delta = of_query(slot, 1, i);
        dp[4 * i] = s[4 * i] * (dp[4 * i] - delta.x);
        dp[4 * i + 1] = s[4 * i + 1] * (dp[4 * i + 1] - delta.y);
        dp[4 * i + 2] = s[4 * i + 2] * (dp[4 * i + 2] - delta.x);
        dp[4 * i + 3] = s[4 * i + 3] * (dp[4 * i + 3] - delta.y);
      }
    };

    if constexpr (!kResident) {
      if (steps > 0) {
        int slot = reader.next(), found = slot;
        ptx::touch(s), ptx::touch(dp), ptx::touch(k), ptx::touch(v);
        ptx::wgmma_fence();
        multiply_s(slot);
        multiply_dp(slot);
        ptx::wgmma_commit();
        reader.release(stationary);            // products are issued when their operands are there
        if (steps > 1) found = reader.next();  // looked for while products run
        ptx::wgmma_wait<0>();
        ptx::touch(s), ptx::touch(dp);
        make_p(slot);
        make_ds(slot);
        pack_sums<T>(probabilities, s);
        pack_sums<T>(ds, dp);
#pragma unroll 1
        for (int step = 1; step < steps; ++step) {
          const int following = found;
          ptx::touch(s), ptx::touch(dp), ptx::touch(probabilities), ptx::touch(ds), ptx::touch(dv), ptx::touch(dk);
          ptx::wgmma_fence();
          multiply_s(following);
          ptx::wgmma_commit();
          multiply_dp(following);
          ptx::wgmma_commit();
          accumulate<T, D>(dv, probabilities, reader.tile(slot, 1));
          accumulate<T, D>(dk, ds, reader.tile(slot, 0));
          ptx::wgmma_commit();
          if (step + 1 < steps) found = reader.next();
          ptx::wgmma_wait<2>();
          ptx::touch(s);
          make_p(following);
          ptx::wgmma_wait<1>();
          ptx::touch(dp);
          make_ds(following);
          ptx::wgmma_wait<0>();
          ptx::touch(dv), ptx::touch(dk), ptx::touch(probabilities), ptx::touch(ds);
          reader.release(slot);
          pack_sums<T>(probabilities, s);
          pack_sums<T>(ds, dp);
          slot = following;
        }
        ptx::touch(probabilities), ptx::touch(ds), ptx::touch(dv), ptx::touch(dk);
        ptx::wgmma_fence();
        accumulate<T, D>(dv, probabilities, reader.tile(slot, 1));
        accumulate<T, D>(dk, ds, reader.tile(slot, 0));
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
        ptx::touch(dv), ptx::touch(dk), ptx::touch(probabilities), ptx::touch(ds);
        reader.release(slot);
      }
    } else {
      const auto give_back = [&] {  // K and V may be overwritten
        __syncwarp();
        if (lane == 0) ptx::mbarrier_arrive(&shared.ring.resident_empty);
      };
      if (steps == 0) give_back();
#pragma unroll 1
      for (int step = 0; step < steps; ++step) {
        const int slot = reader.next();
        ptx::touch(s), ptx::touch(dp), ptx::touch(k);
        ptx::wgmma_fence();
        multiply_s(slot);
        ptx::wgmma_commit();
        multiply_dp(slot);
        ptx::wgmma_commit();
        ptx::wgmma_wait<1>();
        ptx::touch(s);
        make_p(slot);
        ptx::wgmma_wait<0>();
        ptx::touch(dp);
        if (step == steps - 1) give_back();
        make_ds(slot);
        pack_sums<T>(probabilities, s);
        pack_sums<T>(ds, dp);
        ptx::touch(probabilities), ptx::touch(ds), ptx::touch(dv), ptx::touch(dk);
        ptx::wgmma_fence();
        accumulate<T, D>(dv, probabilities, reader.tile(slot, 1));
        accumulate<T, D>(dk, ds, reader.tile(slot, 0));
        ptx::wgmma_commit();
        ptx::wgmma_wait<0>();
        ptx::touch(dv), ptx::touch(dk), ptx::touch(probabilities), ptx::touch(ds);
        reader.release(slot);
      }
    }
    const auto [kept_tile, head, b, part] = reader.kept();
    const int tile = kResident ? kept_tile + consumer : kept_tile;
    if (kPairs && (tile < 0 || tile >= p.kv_layout.tiles)) continue;  // a head's last pair may be short
    store_key_gradient<T, D>(dk, 0, p, b, head, tile, part);
    store_key_gradient<T, D>(dv, 1, p, b, head, tile, part);
  }
#endif
}

}  // namespace vsa::cuda::sm90::fine_backward
