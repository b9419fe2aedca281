#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cuda/kernel.h"

namespace vsa::cuda {

// Launches that are kept back until the operation they are parts of is complete, and then put on the stream at once:
// as a CUDA graph, whose nodes get these launches' blocks and arguments. A launch costs the host about 4 us; a graph
// costs it 2, and 0.3 to 1.2 for every node that changes (NOTES.md). The graph of a sequence of kernels is made when
// the sequence comes for the second time. Under the device's lock.
//
// Whatever else puts work on the stream launches what is kept back first, and no memory goes back to CUDA meanwhile:
// the order on the stream is the order of the calls.
class KeptLaunches {
public:
  explicit KeptLaunches(cudaStream_t stream);

  // Copies the arguments.
  void add(const Kernel& kernel, const Arguments& arguments);
  // An event between them, which must live until all are launched.
  void record(cudaEvent_t event);
  bool empty() const { return kept_.empty(); }
  // Puts all on the stream. None is kept back any more, even if that fails. `complete`: it is all that there is to the
  // operation, or the end of it, and may come again; pieces of other lengths are not worth a graph.
  void launch(bool complete = false);

private:
  struct Kept {
    Kernel kernel;  // without a function: an event
    cudaEvent_t event;
    size_t first, count;       // sizes_[first ..]: of its arguments
    size_t first_byte, bytes;  // bytes_[first_byte ..]: they themselves, one after the other
  };
  struct Node {
    CUgraphNode node = nullptr;
    CUDA_KERNEL_NODE_PARAMS params = {};    // what the node has now, but for the arguments,
    std::vector<std::byte> arguments = {};  // and these
  };
  struct Sequence {
    std::vector<Kernel> kernels;
    uint64_t last_used = 0;
    bool refused = false;         // CUDA makes no graph of it
    cudaGraph_t graph = nullptr;  // whose nodes name those of the executable one
    cudaGraphExec_t executable = nullptr;
    std::vector<Node> nodes = {};
  };

  void launch_all(bool complete);
  bool launch_graph(Sequence& sequence);
  Sequence* find();
  void remember();
  void make_graph(Sequence& sequence);
  void set(Sequence& sequence, size_t index);
  static void destroy(const Sequence& sequence);
  void launch_now(const Kept& kept, cudaStream_t stream, unsigned event_flags) const;
  std::span<const std::byte> bytes_of(const Kept& kept) const { return {bytes_.data() + kept.first_byte, kept.bytes}; }

  const cudaStream_t stream_;
  const PFN_cuGraphKernelNodeGetParams_v12000 get_params_;
  const PFN_cuGraphExecKernelNodeSetParams_v12000 set_params_;
  const PFN_cuGraphLaunch_v10000 start_graph_;

  std::vector<Kept> kept_;
  std::vector<size_t> sizes_;
  std::vector<std::byte> bytes_;

  std::vector<Sequence> sequences_;
  uint64_t launches_ = 0;
};

}  // namespace vsa::cuda
