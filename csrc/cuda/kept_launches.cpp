#include "cuda/kept_launches.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "cuda/check.h"
#include "cuda/driver.h"

namespace vsa::cuda {
namespace {

// Fewer are launched one by one.
constexpr size_t kLeast = 2;
// Sequences that are remembered. A program has few: one for each operation, direction and kind of problem.
constexpr size_t kMostSequences = 64;

void check_driver(CUresult result, const char* what) {
  if (result != CUDA_SUCCESS) check(static_cast<cudaError_t>(result), what);
}

// What nodes of a graph cannot change.
bool same_node(const Kernel& a, const Kernel& b) {
  return a.function == b.function && a.cluster == b.cluster && a.early == b.early;
}

bool has_shape(const CUDA_KERNEL_NODE_PARAMS& params, const Kernel& kernel) {
  return params.gridDimX == kernel.blocks.x && params.gridDimY == kernel.blocks.y &&
         params.gridDimZ == kernel.blocks.z && params.blockDimX == kernel.threads &&
         params.sharedMemBytes == kernel.shared;
}

}  // namespace

KeptLaunches::KeptLaunches(cudaStream_t stream)
    : stream_(stream),
      get_params_(driver_function<PFN_cuGraphKernelNodeGetParams_v12000>("cuGraphKernelNodeGetParams", 12000)),
      set_params_(driver_function<PFN_cuGraphExecKernelNodeSetParams_v12000>("cuGraphExecKernelNodeSetParams", 12000)),
      start_graph_(driver_function<PFN_cuGraphLaunch_v10000>("cuGraphLaunch", 12000)) {}

void KeptLaunches::add(const Kernel& kernel, const Arguments& arguments) {
  VSA_CHECK(arguments.count <= kMostArguments, "a kernel has few arguments");
  Kept kept{kernel, nullptr, sizes_.size(), arguments.count, bytes_.size(), 0};
  for (const Argument& argument : arguments) {
    const auto* const value = static_cast<const std::byte*>(argument.value);
    sizes_.push_back(argument.bytes);
    bytes_.insert(bytes_.end(), value, value + argument.bytes);
  }
  kept.bytes = bytes_.size() - kept.first_byte;
  kept_.push_back(kept);
}

void KeptLaunches::record(cudaEvent_t event) {
  kept_.push_back({Kernel{}, event, sizes_.size(), 0, bytes_.size(), 0});
}

void KeptLaunches::launch(bool complete) {
  if (kept_.empty()) return;
  const auto forget = [&] { kept_.clear(), sizes_.clear(), bytes_.clear(); };
  try {
    launch_all(complete);
  } catch (...) {
    forget();
    throw;
  }
  forget();
}

void KeptLaunches::launch_all(bool complete) {
  ++launches_;
  Sequence* const sequence = kept_.size() < kLeast ? nullptr : find();
  if (sequence != nullptr && launch_graph(*sequence)) return;
  for (const Kept& one : kept_) launch_now(one, stream_, cudaEventRecordDefault);
  if (sequence == nullptr && complete && kept_.size() >= kLeast) remember();
}

// As a graph, if CUDA makes one; then nothing has been launched, and one by one the launches will tell what is wrong.
bool KeptLaunches::launch_graph(Sequence& sequence) {
  sequence.last_used = launches_;
  if (sequence.refused) return false;
  bool refused = true;
  try {
    if (sequence.executable == nullptr) make_graph(sequence);
    for (size_t i = 0; i < kept_.size(); ++i) set(sequence, i);
    check_driver(start_graph_(sequence.executable, stream_), "cuGraphLaunch");
    return true;
  } catch (const CudaError& error) {
    refused = error.error != cudaErrorMemoryAllocation;  // there may be some the next time
  } catch (const Error&) {
  }
  destroy(sequence);
  sequence = {.kernels = std::move(sequence.kernels), .last_used = launches_, .refused = refused};
  return false;
}

KeptLaunches::Sequence* KeptLaunches::find() {
  const auto same = [&](const Sequence& sequence) {
    return std::equal(sequence.kernels.begin(), sequence.kernels.end(), kept_.begin(), kept_.end(),
                      [](const Kernel& kernel, const Kept& kept) { return same_node(kernel, kept.kernel); });
  };
  const auto at = std::find_if(sequences_.begin(), sequences_.end(), same);
  return at == sequences_.end() ? nullptr : &*at;
}

void KeptLaunches::remember() {
  if (sequences_.size() == kMostSequences) {
    const auto older = [](const Sequence& a, const Sequence& b) { return a.last_used < b.last_used; };
    const auto oldest = std::min_element(sequences_.begin(), sequences_.end(), older);
    destroy(*oldest);
    sequences_.erase(oldest);
  }
  Sequence sequence{.kernels = {}, .last_used = launches_};
  for (const Kept& one : kept_) sequence.kernels.push_back(one.kernel);
  sequences_.push_back(std::move(sequence));
}

// By recording the launches: so CUDA sees to it that the graph does what they do on a stream, which ones may begin
// early included.
void KeptLaunches::make_graph(Sequence& sequence) {
  cudaStream_t recorder = nullptr;
  bool recording = false;
  try {
    check(cudaStreamCreateWithFlags(&recorder, cudaStreamNonBlocking), "cudaStreamCreate");
    check(cudaStreamBeginCapture(recorder, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    recording = true;
    std::vector<Node> nodes;
    cudaGraphNode_t kernel = nullptr;
    for (const Kept& one : kept_) {
      launch_now(one, recorder, cudaEventRecordExternal);
      cudaStreamCaptureStatus status{};
      const cudaGraphNode_t* last = nullptr;
      size_t count = 0;
      check(cudaStreamGetCaptureInfo(recorder, &status, nullptr, nullptr, &last, nullptr, &count),
            "cudaStreamGetCaptureInfo");
      VSA_CHECK(status == cudaStreamCaptureStatusActive && count == 1, "what comes next waits for the last kernel");
      const auto bytes = bytes_of(one);
      nodes.push_back({.node = *last, .arguments = {bytes.begin(), bytes.end()}});
      if (one.kernel.function != nullptr) {
        kernel = *last;
      } else if (kernel != nullptr) {
        // Nothing waits for an event: kernels follow each other as if there was none.
        check(cudaStreamUpdateCaptureDependencies(recorder, &kernel, nullptr, 1, cudaStreamSetCaptureDependencies),
              "cudaStreamUpdateCaptureDependencies");
      }
    }
    recording = false;
    check(cudaStreamEndCapture(recorder, &sequence.graph), "cudaStreamEndCapture");
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (kept_[i].kernel.function == nullptr) continue;
      check_driver(get_params_(nodes[i].node, &nodes[i].params), "cuGraphKernelNodeGetParams");
    }
    check(cudaGraphInstantiate(&sequence.executable, sequence.graph, 0), "cudaGraphInstantiate");
    sequence.nodes = std::move(nodes);
  } catch (...) {
    if (recording) cudaStreamEndCapture(recorder, &sequence.graph);
    if (recorder != nullptr) cudaStreamDestroy(recorder);
    cudaGetLastError();
    throw;
  }
  cudaStreamDestroy(recorder);
}

// Gives a node the event, or the blocks and arguments, of what is kept back for its place.
void KeptLaunches::set(Sequence& sequence, size_t index) {
  const Kept& kept = kept_[index];
  Node& node = sequence.nodes[index];
  if (kept.kernel.function == nullptr) {
    check(cudaGraphExecEventRecordNodeSetEvent(sequence.executable, node.node, kept.event),
          "cudaGraphExecEventRecordNodeSetEvent");
    return;
  }
  const auto bytes = bytes_of(kept);
  const bool same =
      node.arguments.size() == bytes.size() && std::memcmp(node.arguments.data(), bytes.data(), bytes.size()) == 0;
  if (same && has_shape(node.params, kept.kernel)) return;
  std::array<void*, kMostArguments> values;  // which are only read
  for (size_t i = 0, at = kept.first_byte; i < kept.count; at += sizes_[kept.first + i++]) values[i] = &bytes_[at];
  CUDA_KERNEL_NODE_PARAMS params = node.params;
  params.gridDimX = kept.kernel.blocks.x, params.gridDimY = kept.kernel.blocks.y;
  params.gridDimZ = kept.kernel.blocks.z, params.blockDimX = kept.kernel.threads;
  params.sharedMemBytes = kept.kernel.shared;
  params.kernelParams = values.data(), params.extra = nullptr;
  node.arguments.clear();  // until it is known what the node has
  check_driver(set_params_(sequence.executable, node.node, &params), kept.kernel.name);
  node.params = params;
  node.arguments.assign(bytes.begin(), bytes.end());
}

void KeptLaunches::destroy(const Sequence& sequence) {
  // One that still runs ends first.
  if (sequence.executable != nullptr) cudaGraphExecDestroy(sequence.executable);
  if (sequence.graph != nullptr) cudaGraphDestroy(sequence.graph);
}

void KeptLaunches::launch_now(const Kept& kept, cudaStream_t stream, unsigned event_flags) const {
  if (kept.kernel.function == nullptr) {
    check(cudaEventRecordWithFlags(kept.event, stream, event_flags), "cudaEventRecord");
    return;
  }
  std::array<Argument, kMostArguments> arguments;
  for (size_t i = 0, at = kept.first_byte; i < kept.count; at += sizes_[kept.first + i++]) {
    arguments[i] = {&bytes_[at], sizes_[kept.first + i]};
  }
  cuda::launch_now(kept.kernel, {arguments.data(), kept.count}, stream);
}

}  // namespace vsa::cuda
