#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

#include "cuda/check.h"

namespace vsa::cuda {

Staging::Staging() {
  for (Slab& slab : slabs_) check(cudaEventCreateWithFlags(&slab.sent, cudaEventDisableTiming), "cudaEventCreate");
}

void Staging::upload(void* target, const void* source, int64_t bytes, cudaStream_t stream) {
  for (int64_t at = 0; at < bytes; at += kSlabBytes) {
    Slab& slab = slabs_[next_];
    next_ = (next_ + 1) % kSlabs;
    if (slab.memory == nullptr) check(cudaMallocHost(&slab.memory, kSlabBytes), "cudaMallocHost");
    check(cudaEventSynchronize(slab.sent), "cudaEventSynchronize");
    const size_t n = static_cast<size_t>(std::min(kSlabBytes, bytes - at));
    std::memcpy(slab.memory, static_cast<const char*>(source) + at, n);
    check(cudaMemcpyAsync(static_cast<char*>(target) + at, slab.memory, n, cudaMemcpyHostToDevice, stream), "upload");
    check(cudaEventRecord(slab.sent, stream), "cudaEventRecord");
  }
}

void* Staging::download_slab() {
  if (download_ == nullptr) check(cudaMallocHost(&download_, kSlabBytes), "cudaMallocHost");
  return download_;
}

}  // namespace vsa::cuda
