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
  explicit EventMark(cudaStream_t stream);
  ~EventMark() override;

  double ms_since(const EventMark& earlier) const;

private:
  cudaEvent_t event_ = nullptr;
};

// Events after every operation. Under the device's lock.
class Trace {
public:
  explicit Trace(cudaStream_t stream) : start_(stream) {}
  void add(const char* name, cudaStream_t stream) { ends_.emplace_back(name, std::make_unique<EventMark>(stream)); }
  // Once the stream has passed them all.
  std::vector<Stage> stages() const;

private:
  EventMark start_;
  std::vector<std::pair<const char*, std::unique_ptr<EventMark>>> ends_;
};

}  // namespace vsa::cuda
