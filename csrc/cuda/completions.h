#pragma once

#include <cuda_runtime_api.h>

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "cuda/verdict.h"
#include "ops/device.h"

namespace vsa::cuda {

// What whoever reads something is told where an operation got bad lists.
std::exception_ptr bad_lists();

// Reads and waits that a stream will end through host callbacks. CUDA never calls back once the context is in error,
// so while any is outstanding a thread asks the stream every few milliseconds; after an error it ends them all itself.
class Completions {
public:
  // `explain` makes the error that outstanding reads end with; called at most once.
  Completions(int device, cudaStream_t stream, std::function<std::exception_ptr(cudaError_t)> explain);

  // One read, or a wait if `take` is empty. After begin() it ends exactly once, by end() or by an error.
  class Pending;
  std::shared_ptr<Pending> begin(Device::Take take, Device::Done done, std::vector<std::shared_ptr<Verdict>> verdicts);
  // Forgets one whose callbacks could not be put on the stream; done is not called.
  void forget(const std::shared_ptr<Pending>& pending);

  // Puts a callback on the stream that takes a part; and the one that ends it.
  void part(const std::shared_ptr<Pending>& pending, const void* slab, int64_t at, int64_t n);
  void end(const std::shared_ptr<Pending>& pending);

private:
  void finish(Pending& pending, std::exception_ptr failure);
  [[noreturn]] void watch();

  const int device_;
  const cudaStream_t stream_;
  const std::function<std::exception_ptr(cudaError_t)> explain_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool watching_ = false;
  std::unordered_set<std::shared_ptr<Pending>> outstanding_;
};

}  // namespace vsa::cuda
