#pragma once

#include <cuda_runtime_api.h>

#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/error.h"
#include "cuda/block_cache.h"
#include "cuda/check.h"
#include "cuda/completions.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "cuda/progress.h"
#include "cuda/staging.h"
#include "cuda/timing.h"
#include "cuda/verdict.h"
#include "ops/device.h"

namespace vsa::cuda {

// One GPU: a stream, a pool of memory ordered by it, and what travels between it and the host. One for the process:
// threads take turns by its lock, held while work is put on the stream, never while it runs.
class CudaDevice final : public Device {
public:
  explicit CudaDevice(int index);

  std::shared_ptr<Storage> allocate(int64_t bytes) override;
  MemoryInfo memory_info() override;
  void reset_peak() override;
  void launch(Call call) override;
  void write(const std::shared_ptr<Storage>& storage, int64_t offset, const void* source, int64_t bytes,
             bool fresh) override;
  void read(const std::shared_ptr<Storage>& storage, int64_t offset, int64_t bytes, Take take, Done done) override;
  void when_idle(Done done) override;
  void begin_together(const char* name) override;
  void end_together() override;
  std::shared_ptr<Mark> mark() override;
  double elapsed_ms(const Mark& from, const Mark& to) override;
  void begin_trace() override;
  std::vector<Stage> end_trace() override;
  bool flush_cache() override;
  void begin_capture() override;
  std::shared_ptr<Graph> end_capture(bool keep) override;
  bool capturing() const override;

  // Memory of another owner, used in this device's queue order; throws if it is not this device's.
  std::shared_ptr<Storage> borrow(uint64_t address, int64_t bytes);
  // For tests: a kernel that faults, after which the context is lost.
  void fault();

  int index() const { return index_; }
  std::recursive_mutex& mutex() { return mutex_; }

  // A block of the pool, in the order of the stream. Giving it back, of the same size, never throws and waits for
  // nothing.
  void* allocate_block(int64_t bytes);
  void free_block(void* data, int64_t bytes) noexcept;
  void check_guards(const void* base, int64_t bytes) noexcept;

  // Runs body() under the lock with this device current. A failure of CUDA's is told with the device's name; one that
  // the context did not survive is told with the operation that was running, and later ones say that it is lost.
  template <typename Body>
  auto enter(const Body& body) {
    const std::lock_guard lock(mutex_);
    if (lost_ != nullptr) std::rethrow_exception(lost_);
    try {
      check(cudaSetDevice(index_), "cudaSetDevice");
      lets_beside_ = false;  // the body may put anything on the stream
      return body();
    } catch (const CudaError& error) {
      std::rethrow_exception(explain(error));
    }
  }

private:
  struct Capture;
  class Recorded;

  std::exception_ptr explain(const CudaError& error);
  void* allocate_fresh(int64_t size);
  void shrink_cache(int64_t most) noexcept;
  void* zeroed(int64_t bytes, Launch& to);
  std::exception_ptr lose(const CudaError& error);
  [[noreturn]] void throw_out_of_memory(int64_t wanted);
  void replay(cudaGraphExec_t graph);

  const int index_;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  BlockCache cache_;  // what the pool has handed out and nobody uses
  int64_t used_ = 0, most_used_ = 0, peak_ = 0;
  unsigned char* zeros_ = nullptr;
  int64_t zeros_taken_ = 0;
  cudaDeviceProp properties_{};
  std::recursive_mutex mutex_;
  std::exception_ptr lost_;  // the error of every later call, once the context is lost
  uint64_t lists_made_ = 0;
  // Whether the last work on the stream is a kernel that the next operation's first may run beside, and no memory has
  // been given back since, which that operation could get.
  bool lets_beside_ = false;
  int together_ = 0;  // begun and not ended
  const char* together_name_ = nullptr;
  std::unique_ptr<Trace> trace_;
  std::shared_ptr<Storage> flushed_;  // memory larger than the L2 cache, once it was asked for
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<Completions> completions_;
  Verdicts verdicts_;

  static thread_local std::unique_ptr<Capture> capture_;
};

CudaDevice& device(int index);

}  // namespace vsa::cuda
