#include "cuda/sm90/fine_backward_launch.cuh"

namespace vsa::cuda::sm90::fine_backward {

template void launch_kernels<__half, 128>(const Args&, const Maps&, const Maps&, const Launch&);

}  // namespace vsa::cuda::sm90::fine_backward
