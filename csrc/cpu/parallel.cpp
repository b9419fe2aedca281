#include "cpu/parallel.h"

#include <pthread.h>
#include <signal.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/error.h"

namespace vsa::cpu {
namespace {

constexpr int kMaxThreads = 1024;

int available_cpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

int default_threads() {
  if (const char* text = std::getenv("VSA_NUM_THREADS")) {
    const char* end = text + std::strlen(text);
    int count = 0;
    const auto [stop, error] = std::from_chars(text, end, count);
    if (error == std::errc() && stop == end && count >= 1 && count <= kMaxThreads) return count;
  }
  return std::clamp(available_cpus(), 1, kMaxThreads);
}

std::atomic<int>& thread_count() {
  static std::atomic<int> count{default_threads()};
  return count;
}

// One parallel_for. Items are taken from `next`; after a failure no more are begun.
struct Job {
  Job(int64_t count_, const std::function<void(int64_t)>& body_) : count(count_), body(body_) {}

  void work() {
    for (;;) {
      const int64_t item = next.fetch_add(1, std::memory_order_relaxed);
      if (item >= count) return;
      try {
        body(item);
      } catch (...) {
        next.store(count, std::memory_order_relaxed);
        const std::lock_guard<std::mutex> lock(failure_mutex);
        if (!failure) failure = std::current_exception();
      }
    }
  }

  const int64_t count;
  const std::function<void(int64_t)>& body;
  std::atomic<int64_t> next{0};
  std::mutex failure_mutex;
  std::exception_ptr failure;
};

class Pool {
public:
  // Never destroyed: its threads wait in it until the process ends, whatever static destructors run meanwhile.
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  // Runs job.work() on the caller and on up to `helpers` threads.
  void run(Job& job, int helpers) {
    const std::lock_guard<std::mutex> one_caller(caller_mutex_);
    grow(helpers);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = &job;
      helpers_ = std::min(helpers, size_);
      running_ = helpers_;
      ++generation_;
    }
    begin_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    end_.wait(lock, [this] { return running_ == 0; });
    job_ = nullptr;
  }

private:
  // Threads that cannot be had are done without: the caller alone would finish the job, too.
  void grow(int wanted) {
    if (size_ >= wanted) return;
    // The threads inherit this mask: signals belong to the host program's threads.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; size_ < wanted; ++size_) {
        std::thread([this, index = size_, seen = generation_]() mutable { serve(index, seen); }).detach();
      }
    } catch (const std::system_error&) {
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  [[noreturn]] void serve(int index, uint64_t seen) {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= helpers_) continue;
      Job& job = *job_;
      lock.unlock();
      job.work();
      lock.lock();
      if (--running_ == 0) end_.notify_one();
    }
  }

  std::mutex caller_mutex_;
  int size_ = 0;  // threads made so far, the caller not counted; guarded by caller_mutex_

  std::mutex mutex_;  // guards what follows
  std::condition_variable begin_, end_;
  uint64_t generation_ = 0;  // jobs begun
  Job* job_ = nullptr;
  int helpers_ = 0;  // threads with an index below take part in the job
  int running_ = 0;  // of those, the ones that have not finished
};

}  // namespace

int threads() {
  return thread_count().load();
}

void set_threads(int count) {
  VSA_CHECK(count >= 1 && count <= kMaxThreads, "the number of threads must be 1..1024");
  thread_count().store(count);
}

void parallel_for(int64_t count, const std::function<void(int64_t)>& body) {
  if (count <= 0) return;
  Job job(count, body);
  const int helpers = static_cast<int>(std::min<int64_t>(threads(), count)) - 1;
  if (helpers == 0) {
    job.work();
  } else {
    Pool::instance().run(job, helpers);
  }
  if (job.failure) std::rethrow_exception(job.failure);
}

}  // namespace vsa::cpu
