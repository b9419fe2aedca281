#include "cpu/device.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "core/error.h"
#include "cpu/memory.h"
#include "cpu/ops.h"
#include "cpu/stream.h"

namespace vsa::cpu {
namespace {

// On the queue's thread. A failure is told to whoever reads an output.
void run_call(const Call& call) {
  std::exception_ptr failure;
  for (const auto& input : call.inputs) {
    if (failure == nullptr) failure = input->failure();
  }
  try {
    if (failure == nullptr) std::visit([](const auto& params) { run(params); }, call.operation);
  } catch (...) {
    failure = std::current_exception();
  }
  for (const auto& output : call.outputs) output->fail(failure);
}

class Recording final : public Graph {
public:
  void replay() override;

  void add(Call call) { calls_->push_back(std::move(call)); }
  std::shared_ptr<const std::atomic<bool>> replayed() const { return replayed_; }

private:
  // Shared with the queue: a graph may be gone before its last replay has run.
  std::shared_ptr<std::vector<Call>> calls_ = std::make_shared<std::vector<Call>>();
  std::shared_ptr<std::atomic<bool>> replayed_ = std::make_shared<std::atomic<bool>>(false);
};

thread_local std::shared_ptr<Recording> recording;

void Recording::replay() {
  if (recording != nullptr) {
    throw Error("ERR_CAPTURE", "replay: got a call inside of graph(), wanted one before or after it");
  }
  enqueue([calls = calls_] {
    for (const Call& call : *calls) run_call(call);
  });
  *replayed_ = true;
}

using Clock = std::chrono::steady_clock;

struct TimeMark final : Mark {
  std::atomic<Clock::rep> at{0};  // written on the queue's thread
};

double ms_between(Clock::rep from, Clock::rep to) {
  return std::chrono::duration<double, std::milli>(Clock::duration(to - from)).count();
}

class CpuDevice final : public Device {
public:
  std::shared_ptr<Storage> allocate(int64_t bytes) override {
    std::shared_ptr<Storage> storage;
    try {
      storage = cpu::allocate(bytes);
    } catch (const OutOfMemory&) {
      // Disposed memory lives on until the tasks that use it have run: let them, then try once more.
      cpu::synchronize();
      storage = cpu::allocate(bytes);
    }
    if (recording != nullptr) storage->awaits(recording->replayed());
    return storage;
  }

  MemoryInfo memory_info() override {
    return {available_bytes(), total_bytes(), held_bytes(), held_bytes(), peak_bytes()};
  }
  void reset_peak() override { cpu::reset_peak(); }

  void launch(Call call) override {
    if (recording != nullptr) {
      recording->add(std::move(call));
      return;
    }
    if (trace_ == nullptr) {
      enqueue([call = std::move(call)] { run_call(call); });
      return;
    }
    enqueue([call = std::move(call), trace = trace_] {
      run_call(call);
      trace->emplace_back(name_of(call.operation), Clock::now().time_since_epoch().count());
    });
  }

  void write(const std::shared_ptr<Storage>& storage, int64_t offset, const void* source, int64_t bytes,
             bool fresh) override {
    unsigned char* const target = static_cast<unsigned char*>(storage->data()) + offset;
    if (bytes == 0) return;  // the addresses may be null then
    if (fresh) {
      std::memcpy(target, source, static_cast<size_t>(bytes));
      return;
    }
    std::shared_ptr<Storage> staging = allocate(bytes);
    std::memcpy(staging->data(), source, static_cast<size_t>(bytes));
    enqueue([storage, staging = std::move(staging), target, bytes] {
      std::memcpy(target, staging->data(), static_cast<size_t>(bytes));
      if (bytes == storage->bytes()) storage->fail(nullptr);
    });
  }

  void read(const std::shared_ptr<Storage>& storage, int64_t offset, int64_t bytes, Take take, Done done) override {
    enqueue_unbounded([storage, offset, bytes, take = std::move(take), done = std::move(done)] {
      std::exception_ptr failure = storage->failure();
      if (failure == nullptr && bytes > 0) take(static_cast<const unsigned char*>(storage->data()) + offset, 0, bytes);
      done(std::move(failure));
    });
  }

  void when_idle(Done done) override {
    enqueue_unbounded([done = std::move(done)] { done(nullptr); });
  }

  void begin_together(const char*) override {}
  void end_together() override {}
  std::shared_ptr<Mark> mark() override {
    auto mark = std::make_shared<TimeMark>();
    enqueue([mark] { mark->at = Clock::now().time_since_epoch().count(); });
    return mark;
  }

  double elapsed_ms(const Mark& from, const Mark& to) override {
    return ms_between(dynamic_cast<const TimeMark&>(from).at, dynamic_cast<const TimeMark&>(to).at);
  }

  void begin_trace() override {
    trace_ = std::make_shared<Trace>();
    enqueue([trace = trace_] { trace->emplace_back("", Clock::now().time_since_epoch().count()); });
  }

  std::vector<Stage> end_trace() override {
    Device::synchronize();
    std::vector<Stage> stages;
    if (trace_ == nullptr) return stages;
    for (size_t i = 1; i < trace_->size(); ++i) {
      stages.push_back({(*trace_)[i].first, ms_between((*trace_)[i - 1].second, (*trace_)[i].second)});
    }
    trace_ = nullptr;
    return stages;
  }

  bool flush_cache() override { return false; }

  void begin_capture() override { recording = std::make_shared<Recording>(); }
  std::shared_ptr<Graph> end_capture(bool) override { return std::exchange(recording, nullptr); }
  bool capturing() const override { return recording != nullptr; }

private:
  using Trace = std::vector<std::pair<const char*, Clock::rep>>;  // of the queue's thread, until it is idle
  std::shared_ptr<Trace> trace_;
};

}  // namespace

Device& device() {
  static CpuDevice* const instance = new CpuDevice;  // outlives the queue's thread
  return *instance;
}

}  // namespace vsa::cpu
