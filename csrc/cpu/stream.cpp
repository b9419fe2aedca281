#include "cpu/stream.h"

#include <pthread.h>
#include <signal.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "core/error.h"
#include "cpu/memory.h"

namespace vsa::cpu {
namespace {

class Queue {
public:
  void push(std::function<void()> task, bool bounded) {
    std::unique_lock lock(mutex_);
    if (bounded) done_.wait(lock, [&] { return tasks_.size() < depth(); });
    if (!started_) start();
    tasks_.push_back(std::move(task));
    ++pushed_;
    wake_.notify_one();
  }

  void wait() {
    std::unique_lock lock(mutex_);
    const uint64_t until = pushed_;
    done_.wait(lock, [&] { return finished_ >= until; });
  }

private:
  static size_t depth() {
    const double most = kAbandonedShare * static_cast<double>(total_bytes());
    return static_cast<double>(abandoned_bytes()) > most ? kShortDepth : kQueueDepth;
  }

  // The thread inherits this mask: signals belong to the host program's threads.
  void start() {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      std::thread([this] { run(); }).detach();
      started_ = true;
    } catch (const std::system_error& error) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      throw Error("ERR_DEVICE", std::string("device cpu: got no thread to compute on (") + error.what() +
                                    "), wanted one: the limit of threads or memory may be reached");
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  [[noreturn]] void run() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return !tasks_.empty(); });
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // releases the memory it held before anyone is told that it is done
      lock.lock();
      ++finished_;
      done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::deque<std::function<void()>> tasks_;
  uint64_t pushed_ = 0, finished_ = 0;
  bool started_ = false;
};

// Never destroyed: its thread may still run while the process exits.
Queue& queue() {
  static Queue* const instance = new Queue;
  return *instance;
}

}  // namespace

void enqueue(std::function<void()> task) {
  queue().push(std::move(task), true);
}

void enqueue_unbounded(std::function<void()> task) {
  queue().push(std::move(task), false);
}

void synchronize() {
  queue().wait();
}

}  // namespace vsa::cpu
