#include "cuda/verdict.h"

#include <cuda_runtime_api.h>

#include "cuda/check.h"

namespace vsa::cuda {

Verdict::~Verdict() {
  const std::lock_guard lock(owner_.mutex_);
  owner_.free_.push_back(word_);
}

std::shared_ptr<Verdict> Verdicts::take() {
  std::unique_lock lock(mutex_);
  if (free_.empty()) {
    // Without the lock: this may wait for the GPU, which may wait for a callback that gives a word back.
    lock.unlock();
    void* page = nullptr;
    check(cudaMallocHost(&page, kPage * sizeof(int32_t)), "cudaMallocHost");
    lock.lock();
    for (int i = 0; i < kPage; ++i) free_.push_back(static_cast<int32_t*>(page) + i);
  }
  int32_t* const word = free_.back();
  free_.pop_back();
  *word = 0;
  return std::make_shared<Verdict>(*this, word);
}

}  // namespace vsa::cuda
