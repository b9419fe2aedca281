#include "cuda/check.h"
#include "cuda/fault.h"

namespace vsa::cuda {
namespace {

__global__ void fault(volatile int* nowhere) {
  *nowhere = 1;
}

}  // namespace

void launch_fault(cudaStream_t stream) {
  fault<<<1, 1, 0, stream>>>(reinterpret_cast<volatile int*>(sizeof(int)));
  check_launch("fault");
}

}  // namespace vsa::cuda
