#pragma once

#include <cuda_runtime_api.h>

#include <memory>
#include <utility>
#include <vector>

#include "ops/device.h"

namespace vsa::cuda {

// An event on the stream, which the GPU stamps with its time.
class EventMark final : public Mark {
public:
  EventMark();
  explicit EventMark(cudaStream_t stream);  // there already
  ~EventMark() override;

  void record(cudaStream_t stream);
  cudaEvent_t event() const { return event_; }

  double ms_since(const EventMark& earlier) const;

private:
  cudaEvent_t event_ = nullptr;
};

// Events after every operation. Under the device's lock.
class Trace {
public:
  explicit Trace(cudaStream_t stream) : start_(stream) {}
  // The mark behind an operation, which is to be recorded.
  void add(const char* name, std::unique_ptr<EventMark> end) { ends_.emplace_back(name, std::move(end)); }
  // Once the stream has passed them all.
  std::vector<Stage> stages() const;
  // The marks, for the next trace.
  void give_back(std::vector<std::unique_ptr<EventMark>>& marks) &&;

private:
  EventMark start_;
  std::vector<std::pair<const char*, std::unique_ptr<EventMark>>> ends_;
};

}  // namespace vsa::cuda
