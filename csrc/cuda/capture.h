#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <memory>
#include <vector>

#include "cuda/device.h"

namespace vsa::cuda {

// What a thread is recording on a device: a stream of its own in capture mode, so that other threads' work goes on.
struct CudaDevice::Capture {
  CudaDevice* device;
  cudaStream_t stream;
  std::shared_ptr<GraphMemory> memory;
  std::shared_ptr<std::atomic<bool>> replayed = std::make_shared<std::atomic<bool>>(false);
  Held held = {};                                       // memory from outside that the graph uses
  std::vector<std::shared_ptr<Verdict>> verdicts = {};  // whose words the graph writes

  void keep(const Call& call);
};

class CudaDevice::Recorded final : public Graph {
public:
  Recorded(CudaDevice& device, cudaGraphExec_t graph, std::unique_ptr<Capture> capture);
  ~Recorded() override;
  void replay() override;

private:
  CudaDevice& device_;
  const cudaGraphExec_t graph_;
  const std::unique_ptr<Capture> capture_;
};

}  // namespace vsa::cuda
