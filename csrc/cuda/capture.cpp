#include "cuda/capture.h"

#include <algorithm>
#include <utility>

namespace vsa::cuda {

void CudaDevice::Capture::keep(const Call& call) {
  for (const Held* memories : {&call.inputs, &call.outputs}) {
    for (const auto& storage : *memories) {
      const auto& one = static_cast<const Memory&>(*storage);
      for (const auto& verdict : one.verdicts) {
        if (verdict->in_graph) verdicts.push_back(verdict);
      }
      // Its own memory it has anyway; holding those tensors would keep their blocks from being used again.
      if (!one.in_graph(memory.get())) held.push_back(storage);
    }
  }
  const auto tidy = [](auto& list) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  };
  tidy(held);
  tidy(verdicts);
}

bool CudaDevice::capturing() const {
  return capture_ != nullptr && capture_->device == this;
}

void CudaDevice::begin_capture() {
  if (capture_ != nullptr) {
    throw Error("ERR_CAPTURE", "graph: got a call inside of graph() of cuda:" +
                                   std::to_string(capture_->device->index()) + ", wanted one GPU's at a time");
  }
  enter([&] {
    cudaStream_t stream = nullptr;
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
    // Relaxed: the graph's memory is allocated on the device's own stream meanwhile.
    const cudaError_t error = cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed);
    if (error != cudaSuccess) cudaStreamDestroy(stream);
    check(error, "cudaStreamBeginCapture");
    capture_.reset(new Capture{.device = this, .stream = stream, .memory = std::make_shared<GraphMemory>(*this)});
  });
}

std::shared_ptr<Graph> CudaDevice::end_capture(bool keep) {
  const std::unique_ptr<Capture> ended = std::exchange(capture_, nullptr);
  return enter([&]() -> std::shared_ptr<Graph> {
    cudaGraph_t graph = nullptr;
    const cudaError_t captured = cudaStreamEndCapture(ended->stream, &graph);
    cudaGetLastError();
    cudaStreamDestroy(ended->stream);
    if (!keep) {
      if (captured == cudaSuccess) cudaGraphDestroy(graph);
      return nullptr;
    }
    check(captured, "cudaStreamEndCapture");
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "cudaGraphInstantiate");
    return std::make_shared<Recorded>(*this, exec, std::unique_ptr<Capture>(new Capture(std::move(*ended))));
  });
}

void CudaDevice::replay(cudaGraphExec_t graph) {
  enter([&] {
    if (!counters_ready_) ready_counters();  // recorded operations use them as well
    check(cudaGraphLaunch(graph, stream_), "cudaGraphLaunch");
    progress_->mark("graph", stream_);
  });
}

CudaDevice::Recorded::Recorded(CudaDevice& device, cudaGraphExec_t graph, std::unique_ptr<Capture> capture)
    : device_(device), graph_(graph), capture_(std::move(capture)) {}

CudaDevice::Recorded::~Recorded() {
  const std::lock_guard lock(device_.mutex_);
  if (device_.lost_ != nullptr || cudaSetDevice(device_.index_) != cudaSuccess) return;
  cudaStreamSynchronize(device_.stream_);  // a replay may still be running
  cudaGraphExecDestroy(graph_);
  cudaGetLastError();
}

void CudaDevice::Recorded::replay() {
  if (device_.capturing()) {
    throw Error("ERR_CAPTURE", "replay: got a call inside of graph(), wanted one before or after it");
  }
  device_.replay(graph_);
  *capture_->replayed = true;
}

}  // namespace vsa::cuda
