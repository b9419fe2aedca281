#pragma once

#include <cuda_runtime.h>

#include "cuda/check.h"
#include "cuda/launch.h"

namespace vsa::cuda {

// Blocks and how many of them are a cluster, which Hopper has.
struct Clusters {
  dim3 blocks;
  unsigned size;
};

// Launches a kernel. `early`: its blocks may come before the kernel ahead of it on the stream has ended, and see to it
// themselves that they wait where they must.
template <typename... Parameters, typename... Arguments>
void launch_early(bool early, void (*kernel)(Parameters...), const char* name, const Launch& on, const Clusters& grid,
                  int threads, size_t shared, const Arguments&... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid.blocks, config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared, config.stream = on.stream;
  cudaLaunchAttribute attributes[2] = {};
  const auto add = [&](cudaLaunchAttributeID id) -> cudaLaunchAttributeValue& {
    attributes[config.numAttrs].id = id;
    return attributes[config.numAttrs++].val;
  };
  if (early) add(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
  if (grid.size > 1) add(cudaLaunchAttributeClusterDimension).clusterDim = {grid.size, 1, 1};
  config.attrs = attributes;
  check(cudaLaunchKernelEx(&config, kernel, arguments...), name);
}

// Launches a kernel that begins with ptx::join_chain(), or calls its parts itself. On Hopper its blocks may then come
// before the kernel ahead of it on the stream has ended, and wait for that, whatever it is, before they touch memory:
// that hides the time from one to the next. The backward gains by it, the forward does not (sm90/NOTES.md).
template <typename... Parameters, typename... Arguments>
void launch_in_chain(void (*kernel)(Parameters...), const char* name, const Launch& on, const Clusters& grid,
                     int threads, size_t shared, const Arguments&... arguments) {
  launch_early(on.chains, kernel, name, on, grid, threads, shared, arguments...);
}

template <typename... Parameters, typename... Arguments>
void launch_in_chain(void (*kernel)(Parameters...), const char* name, const Launch& on, dim3 blocks, int threads,
                     size_t shared, const Arguments&... arguments) {
  launch_in_chain(kernel, name, on, Clusters{blocks, 1}, threads, shared, arguments...);
}

// Launches the first kernel of an operation, which runs beside the last one of the operation ahead where it may
// (on.beside), on SMs that have room. It touches nothing of that one's, and one of its blocks waits for that one's end
// last of all: so it has not ended before, and whoever waits for it finds both done.
template <typename... Parameters, typename... Arguments>
void launch_beside(void (*kernel)(Parameters...), const char* name, const Launch& on, dim3 blocks, int threads,
                   size_t shared, const Arguments&... arguments) {
  launch_early(on.beside, kernel, name, on, Clusters{blocks, 1}, threads, shared, arguments...);
}

}  // namespace vsa::cuda
