#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "cuda/kernel.h"
#include "cuda/launch.h"

namespace vsa::cuda {

// Blocks and how many of them are a cluster, which Hopper has.
struct Clusters {
  dim3 blocks;
  unsigned size;
};

// Launches a kernel. `early`: its blocks may come before the kernel ahead of it on the stream has ended, and see to it
// themselves that they wait where they must.
template <typename... Parameters, typename... Values>
void launch_early(bool early, void (*kernel)(Parameters...), const char* name, const Launch& on, const Clusters& grid,
                  int threads, size_t shared, const Values&... arguments) {
  static_assert((std::is_same_v<std::remove_cv_t<Parameters>, Values> && ...), "arguments are passed as they are");
  const Argument values[] = {{&arguments, sizeof(arguments)}...};
  Kernel one{};
  one.function = reinterpret_cast<const void*>(kernel), one.name = name;
  one.blocks = grid.blocks, one.threads = static_cast<unsigned>(threads);
  one.shared = static_cast<unsigned>(shared);
  one.cluster = grid.size, one.early = early;
  launch_kernel(one, {values, sizeof...(arguments)}, on);
}

template <typename... Parameters, typename... Values>
void launch_kernel(void (*kernel)(Parameters...), const char* name, const Launch& on, dim3 blocks, int threads,
                   size_t shared, const Values&... arguments) {
  launch_early(false, kernel, name, on, Clusters{blocks, 1}, threads, shared, arguments...);
}

// Launches a kernel that begins with ptx::join_chain(), or calls its parts itself. On Hopper its blocks may then come
// before the kernel ahead of it on the stream has ended, and wait for that, whatever it is, before they touch memory:
// that hides the time from one to the next. The backward gains by it, the forward does not (sm90/NOTES.md).
template <typename... Parameters, typename... Values>
void launch_in_chain(void (*kernel)(Parameters...), const char* name, const Launch& on, const Clusters& grid,
                     int threads, size_t shared, const Values&... arguments) {
  launch_early(on.chains, kernel, name, on, grid, threads, shared, arguments...);
}

template <typename... Parameters, typename... Values>
void launch_in_chain(void (*kernel)(Parameters...), const char* name, const Launch& on, dim3 blocks, int threads,
                     size_t shared, const Values&... arguments) {
  launch_in_chain(kernel, name, on, Clusters{blocks, 1}, threads, shared, arguments...);
}

// Launches the first kernel of an operation, which runs beside the last one of the operation ahead where it may
// (on.beside), on SMs that have room. It touches nothing of that one's, and one of its blocks waits for that one's end
// last of all: so it has not ended before, and whoever waits for it finds both done.
template <typename... Parameters, typename... Values>
void launch_beside(void (*kernel)(Parameters...), const char* name, const Launch& on, dim3 blocks, int threads,
                   size_t shared, const Values&... arguments) {
  launch_early(on.beside, kernel, name, on, Clusters{blocks, 1}, threads, shared, arguments...);
}

}  // namespace vsa::cuda
