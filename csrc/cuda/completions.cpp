#include "cuda/completions.h"

#include <signal.h>

#include <chrono>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"
#include "cuda/check.h"

namespace vsa::cuda {
namespace {

constexpr auto kPoll = std::chrono::milliseconds(5);

}  // namespace

std::exception_ptr bad_lists() {
  return std::make_exception_ptr(
      Error("ERR_LISTS",
            "lists: got entries that an operation found unsorted, twice or out of range (their offsets or "
            "indices were overwritten after TileLists checked them), wanted ascending tiles"));
}

class Completions::Pending {
public:
  Pending(Device::Take take, Device::Done done, std::vector<std::shared_ptr<Verdict>> verdicts)
      : take_(std::move(take)), done_(std::move(done)), verdicts_(std::move(verdicts)) {}

  void take(const void* slab, int64_t at, int64_t n) {
    const std::lock_guard lock(mutex_);
    if (!finished_) take_(slab, at, n);
  }

  void finish(std::exception_ptr failure) {
    const std::lock_guard lock(mutex_);
    if (std::exchange(finished_, true)) return;
    for (const auto& verdict : verdicts_) {
      if (failure == nullptr && verdict->bad()) failure = bad_lists();
    }
    done_(std::move(failure));
    take_ = nullptr;  // they may hold memory
    done_ = nullptr;
    verdicts_.clear();
  }

  void drop() {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }

private:
  std::mutex mutex_;
  bool finished_ = false;
  Device::Take take_;
  Device::Done done_;
  std::vector<std::shared_ptr<Verdict>> verdicts_;
};

Completions::Completions(int device, cudaStream_t stream, std::function<std::exception_ptr(cudaError_t)> explain)
    : device_(device), stream_(stream), explain_(std::move(explain)) {}

std::shared_ptr<Completions::Pending> Completions::begin(Device::Take take, Device::Done done,
                                                         std::vector<std::shared_ptr<Verdict>> verdicts) {
  auto pending = std::make_shared<Pending>(std::move(take), std::move(done), std::move(verdicts));
  const std::lock_guard lock(mutex_);
  if (!watching_) {
    sigset_t all, before;  // signals belong to the host program's threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { watch(); }).detach();
      watching_ = true;
    } catch (const std::system_error& error) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw Error("ERR_DEVICE", std::string("device cuda: got no thread to watch the GPU with (") + error.what() + ")");
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  outstanding_.insert(pending);
  wake_.notify_one();
  return pending;
}

void Completions::forget(const std::shared_ptr<Pending>& pending) {
  pending->drop();
  const std::lock_guard lock(mutex_);
  outstanding_.erase(pending);
}

void Completions::part(const std::shared_ptr<Pending>& pending, const void* slab, int64_t at, int64_t n) {
  struct Part {
    std::shared_ptr<Pending> pending;
    const void* slab;
    int64_t at, n;
  };
  auto* const part = new Part{pending, slab, at, n};
  const cudaError_t error = cudaLaunchHostFunc(
      stream_,
      [](void* data) {
        const std::unique_ptr<Part> one(static_cast<Part*>(data));
        one->pending->take(one->slab, one->at, one->n);
      },
      part);
  if (error != cudaSuccess) delete part;
  check(error, "cudaLaunchHostFunc");
}

void Completions::end(const std::shared_ptr<Pending>& pending) {
  struct End {
    Completions& completions;
    std::shared_ptr<Pending> pending;
  };
  auto* const end = new End{*this, pending};
  const cudaError_t error = cudaLaunchHostFunc(
      stream_,
      [](void* data) {
        const std::unique_ptr<End> one(static_cast<End*>(data));
        {
          const std::lock_guard lock(one->completions.mutex_);
          one->completions.outstanding_.erase(one->pending);
        }
        one->pending->finish(nullptr);
      },
      end);
  if (error != cudaSuccess) delete end;
  check(error, "cudaLaunchHostFunc");
}

void Completions::watch() {
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return !outstanding_.empty(); });
    wake_.wait_for(lock, kPoll);  // most end sooner
    if (outstanding_.empty()) continue;
    // Without the lock: CUDA may let this call wait for a thread that fills the stream's queue, which waits for the
    // stream, which waits for a callback, which needs the lock.
    lock.unlock();
    const cudaError_t state = cudaStreamQuery(stream_);
    const bool lost = state != cudaSuccess && state != cudaErrorNotReady;
    const std::exception_ptr failure = lost ? explain_(state) : nullptr;
    lock.lock();
    if (!lost) continue;
    const auto ended = std::exchange(outstanding_, {});
    lock.unlock();
    for (const auto& pending : ended) pending->finish(failure);
    lock.lock();
  }
}

}  // namespace vsa::cuda
