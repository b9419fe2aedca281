#pragma once

#include <cstdint>

#include "cuda/ptx/ldmatrix.h"

namespace vsa::cuda::ptx {

// The block's number in its cluster.
__device__ __forceinline__ int32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return static_cast<int32_t>(rank);
}

// Waits for all threads of the cluster; what they wrote to shared memory before can be read after.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
}

// The same variable of another block of the cluster, in its shared memory.
__device__ __forceinline__ uint32_t address_in_cluster(const void* shared, int32_t rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(shared)), "r"(rank));
  return address;
}
__device__ __forceinline__ int32_t read_in_cluster(const int32_t& shared, int32_t rank) {
  int32_t x;
  asm volatile("ld.shared::cluster.s32 %0, [%1];" : "=r"(x) : "r"(address_in_cluster(&shared, rank)) : "memory");
  return x;
}
__device__ __forceinline__ int4 read_in_cluster(const int4& shared, int32_t rank) {
  int4 x;
  asm volatile("ld.shared::cluster.v4.s32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "r"(address_in_cluster(&shared, rank))
               : "memory");
  return x;
}

}  // namespace vsa::cuda::ptx
