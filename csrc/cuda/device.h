#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "cuda/block_cache.h"
#include "cuda/check.h"
#include "cuda/completions.h"
#include "cuda/kept_launches.h"
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
  // The calling thread ends, maybe between begin_together() and end_together().
  static void end_thread() noexcept;
  // For tests: a kernel that faults, after which the context is lost.
  void fault();

  int index() const { return index_; }
  std::recursive_mutex& mutex() { return mutex_; }

  // A block of the pool, in the order of the stream. Giving it back, of the same size, never throws and waits for
  // nothing.
  void* allocate_block(int64_t bytes);
  void free_block(void* data, int64_t bytes) noexcept;
  void check_guards(const void* base, int64_t bytes) noexcept;

  // Runs body() under the lock with this device current, behind whatever was launched before. A failure of CUDA's is
  // told with the device's name; one that the context did not survive is told with the operation that was running, and
  // later ones say that it is lost.
  template <typename Body>
  auto enter(const Body& body) {
    return enter_keeping([&] {
      launch_kept();
      return body();
    });
  }

private:
  struct Capture;
  class Recorded;
  // What a thread has begun and not ended: begin_together().
  struct Together {
    CudaDevice* device;
    const char* name;
    int depth;
  };

  // enter() for a body that may leave kept back what is.
  template <typename Body>
  auto enter_keeping(const Body& body) {
    const std::lock_guard lock(mutex_);
    if (lost_ != nullptr) std::rethrow_exception(lost_);
    try {
      make_current();
      lets_beside_ = false;  // the body may put anything on the stream
      return body();
    } catch (const CudaError& error) {
      std::rethrow_exception(explain(error));
    }
  }

  void make_current();
  std::exception_ptr explain(const CudaError& error);
  void* allocate_fresh(int64_t size);
  void shrink_cache(int64_t most) noexcept;
  void* zeroed(int64_t bytes, Launch& to);
  std::exception_ptr lose(const CudaError& error);
  [[noreturn]] void throw_out_of_memory(int64_t wanted);
  void replay(cudaGraphExec_t graph);
  EventMark& trace_end_of(const char* name);
  void launch_kept();
  void take_turn();
  void throw_kept_failure();
  bool in_together() const;
  bool keeps_launches() const;
  void ready_counters();

  const int index_;
  const PFN_cuCtxGetCurrent_v4000 current_context_;
  CUcontext context_ = nullptr;
  cudaStream_t stream_ = nullptr;
  cudaMemPool_t pool_ = nullptr;
  BlockCache cache_;  // what the pool has handed out and nobody uses
  int64_t used_ = 0, most_used_ = 0, peak_ = 0;
  unsigned char* zeros_ = nullptr;
  int64_t zeros_taken_ = 0;
  int32_t* counters_ = nullptr;  // Launch::counters
  bool counters_ready_ = false;  // not after an operation that may have ended midway
  cudaDeviceProp properties_{};
  std::recursive_mutex mutex_;
  std::exception_ptr lost_;  // the error of every later call, once the context is lost
  uint64_t lists_made_ = 0;
  // Whether the last work on the stream is a kernel that the next operation's first may run beside, and no memory has
  // been given back since, which that operation could get.
  bool lets_beside_ = false;
  std::unique_ptr<KeptLaunches> kept_;
  // Whose launches are kept back, and whose parts have no number yet; what those are parts of.
  std::thread::id keeper_;
  const char* keeper_name_ = nullptr;
  // Why what a thread kept back could not be launched when another had to.
  std::exception_ptr kept_failure_;
  std::thread::id failed_keeper_;
  std::unique_ptr<Trace> trace_;
  // Of traces that are over. Not destroyed: graphs of what was kept back hold them until they get others.
  std::vector<std::unique_ptr<EventMark>> spare_marks_;
  std::shared_ptr<Storage> flushed_;  // memory larger than the L2 cache, once it was asked for
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<Completions> completions_;
  Verdicts verdicts_;

  static thread_local std::unique_ptr<Capture> capture_;
  static thread_local Together together_;
};

CudaDevice& device(int index);

}  // namespace vsa::cuda
