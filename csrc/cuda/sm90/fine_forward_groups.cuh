#pragma once

#include <cstdint>

#include "cuda/sm90/fine_forward_groups_producer.cuh"
#include "cuda/sm90/fine_forward_output.cuh"
#include "cuda/sm90/fine_forward_step.cuh"
#include "cuda/sm90/ptx/registers.h"

namespace vsa::cuda::sm90 {

// A consumer warpgroup: one query tile of the group over the key tiles it wants.
template <typename T, typename C>
struct GroupsConsumer : FineForwardSteps<T, GroupsShared<C>> {
  using Base = FineForwardSteps<T, GroupsShared<C>>;
  using Base::Base;
  using Base::member, Base::o, Base::p, Base::shared, Base::softmax, Base::thread;

  __device__ __forceinline__ Mail receive_mail(uint32_t number) {
    constexpr uint32_t kMails = GroupsShared<C>::kMails;
    ptx::mbarrier_wait(&shared.mail_full[member][number % kMails], number / kMails % 2);
    // By the lane that will release the tile, and with it the mail's place.
    const Mail& mail = shared.mail[member][number % kMails];
    const bool reads = thread % 32 == 0;
    return {__shfl_sync(~0u, reads ? mail.k : 0, 0), __shfl_sync(~0u, reads ? mail.v : 0, 0)};
  }
  __device__ __forceinline__ static KeyTile tile_of(Mail mail) {
    return {mail.k & 15, mail.k >> 4 & 1, mail.v & 15, mail.v >> 4 & 1, 1, static_cast<int32_t>(mail.k >> 5)};
  }

  // The tiles of `own` mails from `number` on, but for P V of the last, which is returned. Q is free then.
  __device__ __forceinline__ KeyTile attend(int own, uint32_t number) {
    Mail mail = receive_mail(number);
    KeyTile next = tile_of(mail);
    this->template step<false, true>(next, next);
#pragma unroll 1
    for (int i = 1; i < own; ++i) {
      const KeyTile current = next;
      if (mail.last()) {
        this->template step<true, false>(current, current);
        mail = receive_mail(number + i);
        next = tile_of(mail);
        this->template step<false, true, false>(next, next);
      } else {
        mail = receive_mail(number + i);
        next = tile_of(mail);
        this->template step<true, true>(current, next);
      }
    }
    this->release_q();
    return next;
  }

  __device__ __forceinline__ void run() {
    uint32_t q_loads = 0, mails = 0;
    for (uint32_t round = 0;; ++round) {
      const uint32_t slot = round % kItemSlots;
      ptx::mbarrier_wait(&shared.item_full[slot], round / kItemSlots % 2);
      const GroupItem item = GroupItem::read(shared.items[slot], thread % 32);
      this->release(&shared.item_empty[slot], 1);
      if (item.q_tile < 0) return;
      const int own = member == 0 ? item.own[0] : member == 1 ? item.own[1] : member == 2 ? item.own[2] : item.own[3];
      const int q_tile = item.q_tile + member;
      const QueryRows rows(p, q_tile, thread);
      this->begin(rows.exists);
      KeyTile last = {};
      if (own > 0) {
        this->receive_q(q_loads++);
        last = attend(own, mails);
        mails += own;
      }
      Output<T, C::D> output(p, item.head, q_tile, rows, thread);
      if (own > 0) this->template step<true, false>(last, last);
      if (q_tile >= p.q_tiles) continue;
      softmax.finish();
      output.store(o, softmax, p.combined != nullptr);
    }
  }
};

// Fine attention of three neighbouring query tiles a block over the union of their lists, or of four over full lists:
// each key tile is copied once, for whichever of them want it. Blocks stay and take group after group.
template <typename T, typename C>
__global__ void __launch_bounds__(C::kThreads, 1) fine_forward_groups(const __grid_constant__ FineForwardArgs p) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)  // other architectures of the build get an empty kernel
  using Shared = GroupsShared<C>;
  extern __shared__ __align__(1024) uint8_t memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    constexpr int kArrivals = C::kMembers * kWarps;
    for (int i = 0; i < C::kKStages; ++i) {
      ptx::mbarrier_init(&shared.k_full[i], 1), ptx::mbarrier_init(&shared.k_empty[i], kArrivals);
    }
    for (int i = 0; i < C::kVStages; ++i) {
      ptx::mbarrier_init(&shared.v_full[i], 1), ptx::mbarrier_init(&shared.v_empty[i], kArrivals);
    }
    for (int m = 0; m < C::kMembers; ++m) {
      ptx::mbarrier_init(&shared.q_full[m], 1), ptx::mbarrier_init(&shared.q_empty[m], kWarps);
      for (int i = 0; i < Shared::kMails; ++i) ptx::mbarrier_init(&shared.mail_full[m][i], 2);
    }
    for (int i = 0; i < kItemSlots; ++i) {
      // Read by the warps that copy Q and V and by those of the members.
      ptx::mbarrier_init(&shared.item_full[i], 1), ptx::mbarrier_init(&shared.item_empty[i], 2 + kArrivals);
    }
    ::cuda::ptx::fence_mbarrier_init(::cuda::ptx::sem_release, ::cuda::ptx::scope_cluster);
  }
  if (ptx::shared_address(memory) % 1024 != 0) __trap();  // the swizzle counts on it
  __syncthreads();

  const int warp = __shfl_sync(~0u, thread / 32, 0), warpgroup = warp / 4;
  if (warpgroup == 0) {
    ptx::registers_decrease<C::kProducerRegisters>();
    GroupsProducer<C> producer{p, shared, thread % 32};
    if (warp == 0) producer.template copy_keys<false>();
    if (warp == 1) producer.copy_queries();
    if (warp == 2) producer.template copy_keys<true>();
  } else {
    ptx::registers_increase<C::kConsumerRegisters>();
    GroupsConsumer<T, C>(p, shared, warpgroup - 1).run();
  }
#endif
}

}  // namespace vsa::cuda::sm90
