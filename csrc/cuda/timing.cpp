#include "cuda/timing.h"

#include "core/error.h"
#include "cuda/check.h"
#include "cuda/device.h"

namespace vsa::cuda {

EventMark::EventMark(cudaStream_t stream) {
  check(cudaEventCreate(&event_), "cudaEventCreate");
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

std::shared_ptr<Mark> CudaDevice::mark() {
  VSA_CHECK(!capturing(), "time is not recorded into a graph");
  return enter([&] { return std::make_shared<EventMark>(stream_); });
}

double CudaDevice::elapsed_ms(const Mark& from, const Mark& to) {
  return enter([&] { return dynamic_cast<const EventMark&>(to).ms_since(dynamic_cast<const EventMark&>(from)); });
}

void CudaDevice::begin_trace() {
  enter([&] { trace_ = std::make_unique<Trace>(stream_); });
}

std::vector<Stage> CudaDevice::end_trace() {
  synchronize();
  return enter([&] {
    const std::unique_ptr<Trace> ended = std::exchange(trace_, nullptr);
    return ended == nullptr ? std::vector<Stage>() : ended->stages();
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
