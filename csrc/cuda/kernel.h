#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace vsa::cuda {

struct Launch;

// A kernel and how it is launched, but for its arguments.
struct Kernel {
  const void* function;
  const char* name;  // a literal, told where the launch is refused
  dim3 blocks;
  unsigned threads, shared;  // of a block; shared: dynamic shared memory, bytes
  unsigned cluster;          // blocks of a cluster, which Hopper has; 1: none
  bool early;                // its blocks may come before the kernel ahead of it on the stream has ended (cuda/chain.h)
};

// Of a kernel.
inline constexpr size_t kMostArguments = 8;

struct Argument {
  const void* value;
  size_t bytes;
};
// In the order of a kernel's parameters. A view.
struct Arguments {
  const Argument* first;
  size_t count;
  const Argument* begin() const { return first; }
  const Argument* end() const { return first + count; }
};

// Puts a kernel on the stream now.
void launch_now(const Kernel& kernel, const Arguments& arguments, cudaStream_t stream);

// The same, or keeps it back to be launched together with others (cuda/kept_launches.h).
void launch_kernel(const Kernel& kernel, const Arguments& arguments, const Launch& on);

}  // namespace vsa::cuda
