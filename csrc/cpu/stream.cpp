#include "cpu/stream.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace vsa::cpu {
namespace {

class Queue {
 public:
  void push(std::function<void()> task) {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return tasks_.size() < kQueueDepth; });
    if (!started_) {
      std::thread([this] { run(); }).detach();
      started_ = true;
    }
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

void enqueue(std::function<void()> task) { queue().push(std::move(task)); }

void synchronize() { queue().wait(); }

}  // namespace vsa::cpu
