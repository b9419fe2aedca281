#include "cuda/fine_backward_launch.cuh"

namespace vsa::cuda::fine_backward {

template void launch_typed<__half>(const Args&, int64_t, const Launch&);

}  // namespace vsa::cuda::fine_backward
