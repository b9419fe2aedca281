#include "cuda/timing.h"

#include "core/error.h"
#include "cuda/check.h"
#include "cuda/device.h"

namespace vsa::cuda {

EventMark::EventMark() {
  check(cudaEventCreate(&event_), "cudaEventCreate");
}

EventMark::EventMark(cudaStream_t stream) : EventMark() {
  record(stream);
}

void EventMark::record(cudaStream_t stream) {
  check(cudaEventRecord(event_, stream), "cudaEventRecord");
}

EventMark::~EventMark() {
  if (event_ != nullptr) cudaEventDestroy(event_);  // at the process's end there may be nothing left to destroy
}

double EventMark::ms_since(const EventMark& earlier) const {
  float ms = 0;
  check(cudaEventElapsedTime(&ms, earlier.event_, event_), "cudaEventElapsedTime");
  return ms;
}

std::vector<Stage> Trace::stages() const {
  std::vector<Stage> stages;
  const EventMark* before = &start_;
  for (const auto& [name, end] : ends_) {
    stages.push_back({name, end->ms_since(*before)});
    before = end.get();
  }
  return stages;
}

void Trace::give_back(std::vector<std::unique_ptr<EventMark>>& marks) && {
  for (auto& [name, end] : ends_) marks.push_back(std::move(end));
}

EventMark& CudaDevice::trace_end_of(const char* name) {
  std::unique_ptr<EventMark> end;
  if (spare_marks_.empty()) {
    end = std::make_unique<EventMark>();
  } else {
    end = std::move(spare_marks_.back());
    spare_marks_.pop_back();
  }
  EventMark& mark = *end;
  trace_->add(name, std::move(end));
  return mark;
}

std::shared_ptr<Mark> CudaDevice::mark() {
  VSA_CHECK(!capturing(), "time is not recorded into a graph");
  return enter([&] { return std::make_shared<EventMark>(stream_); });
}

double CudaDevice::elapsed_ms(const Mark& from, const Mark& to) {
  return enter([&] { return dynamic_cast<const EventMark&>(to).ms_since(dynamic_cast<const EventMark&>(from)); });
}

void CudaDevice::begin_trace() {
  enter([&] {
    if (trace_ != nullptr) std::move(*trace_).give_back(spare_marks_);
    trace_ = std::make_unique<Trace>(stream_);
  });
}

std::vector<Stage> CudaDevice::end_trace() {
  synchronize();
  return enter([&] {
    const std::unique_ptr<Trace> ended = std::exchange(trace_, nullptr);
    if (ended == nullptr) return std::vector<Stage>();
    std::vector<Stage> stages;
    try {
      stages = ended->stages();
    } catch (...) {
      std::move(*ended).give_back(spare_marks_);
      throw;
    }
    std::move(*ended).give_back(spare_marks_);
    return stages;
  });
}

bool CudaDevice::flush_cache() {
  return enter([&] {
    // Twice the cache: whatever its policy, nothing of before is left. Written with zeros, which compress to nothing
    // where the GPU compresses, so with a pattern.
    const int64_t bytes = 2 * int64_t{properties_.l2CacheSize};
    if (flushed_ == nullptr) flushed_ = allocate(bytes);
    check(cudaMemsetAsync(flushed_->data(), 0x5A, static_cast<size_t>(bytes), stream_), "cudaMemsetAsync");
    return true;
  });
}

}  // namespace vsa::cuda
