#include "cuda/progress.h"

#include "cuda/check.h"
#include "cuda/driver.h"

namespace vsa::cuda {

Progress::Progress() : write_value_(driver_function<PFN_cuStreamWriteValue32_v11070>("cuStreamWriteValue32", 12000)) {
  void* host = nullptr;
  void* mapped = nullptr;
  check(cudaHostAlloc(&host, sizeof(uint32_t), cudaHostAllocMapped), "cudaHostAlloc");
  check(cudaHostGetDevicePointer(&mapped, host, 0), "cudaHostGetDevicePointer");
  finished_ = static_cast<volatile uint32_t*>(host);
  *finished_ = 0;
  finished_on_device_ = reinterpret_cast<unsigned long long>(mapped);
}

void Progress::mark(const char* name, cudaStream_t stream) {
  names_[++issued_ % kNames] = name;
  parts_ = 0;
  const CUresult result = write_value_(stream, finished_on_device_, issued_, CU_STREAM_WRITE_VALUE_DEFAULT);
  if (result != CUDA_SUCCESS) check(static_cast<cudaError_t>(result), "cuStreamWriteValue32");
}

bool Progress::part(const char* name) {
  if (parts_ == kMostParts) return false;
  names_[(issued_ + 1) % kNames] = name;
  ++parts_;
  return true;
}

const char* Progress::running() const {
  const uint32_t finished = *finished_;
  if ((finished == issued_ && parts_ == 0) || issued_ - finished > kNames) return nullptr;
  return names_[(finished + 1) % kNames];
}

}  // namespace vsa::cuda
