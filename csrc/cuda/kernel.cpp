#include "cuda/kernel.h"

#include <array>

#include "core/error.h"
#include "cuda/check.h"
#include "cuda/kept_launches.h"
#include "cuda/launch.h"

namespace vsa::cuda {

void launch_now(const Kernel& kernel, const Arguments& arguments, cudaStream_t stream) {
  VSA_CHECK(arguments.count <= kMostArguments, "a kernel has few arguments");
  std::array<void*, kMostArguments> values;
  for (size_t i = 0; i < arguments.count; ++i) values[i] = const_cast<void*>(arguments.first[i].value);  // read only
  cudaLaunchConfig_t config = {};
  config.gridDim = kernel.blocks, config.blockDim = dim3(kernel.threads);
  config.dynamicSmemBytes = kernel.shared, config.stream = stream;
  cudaLaunchAttribute attributes[2] = {};
  const auto add = [&](cudaLaunchAttributeID id) -> cudaLaunchAttributeValue& {
    attributes[config.numAttrs].id = id;
    return attributes[config.numAttrs++].val;
  };
  if (kernel.early) {
    add(cudaLaunchAttributeProgrammaticStreamSerialization).programmaticStreamSerializationAllowed = 1;
  }
  if (kernel.cluster > 1) add(cudaLaunchAttributeClusterDimension).clusterDim = {kernel.cluster, 1, 1};
  config.attrs = attributes;
  check(cudaLaunchKernelExC(&config, kernel.function, values.data()), kernel.name);
}

void launch_kernel(const Kernel& kernel, const Arguments& arguments, const Launch& on) {
  if (on.kept != nullptr) {
    on.kept->add(kernel, arguments);
  } else {
    launch_now(kernel, arguments, on.queue);
  }
}

cudaStream_t Launch::stream() const {
  if (kept != nullptr) kept->launch();
  return queue;
}

}  // namespace vsa::cuda
