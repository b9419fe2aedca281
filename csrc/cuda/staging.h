#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace vsa::cuda {

// Pinned host memory that copies pass through: the driver copies asynchronously from and to nothing else. All calls
// under the device's lock.
class Staging {
public:
  static constexpr int64_t kSlabBytes = int64_t{4} << 20;

  Staging();

  // Copies from the host to the device, on the stream, slab by slab; returns when the source has been read. Blocks
  // only while all slabs are on their way.
  void upload(void* target, const void* source, int64_t bytes, cudaStream_t stream);

  // One slab for copies to the host. The next copy into it comes later in the stream than whoever empties it, so one
  // is enough.
  void* download_slab();

private:
  static constexpr int kSlabs = 4;

  struct Slab {
    void* memory = nullptr;
    cudaEvent_t sent = nullptr;  // of its last use
  };
  Slab slabs_[kSlabs];
  int next_ = 0;
  void* download_ = nullptr;
};

}  // namespace vsa::cuda
