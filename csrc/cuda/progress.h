#pragma once

#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace vsa::cuda {

// How far a stream has come, read on the host without asking CUDA: after every operation the stream writes its number
// into pinned memory. So a fault can be traced to the operation that was running, when CUDA itself says nothing any
// more. A number costs the stream up to 2 us; operations that are parts of one share one. Under the device's lock.
class Progress {
public:
  Progress();

  // Counts an operation whose kernels are now on the stream; `name` is a literal.
  void mark(const char* name, cudaStream_t stream);
  // Counts a part of an operation of that name, whose mark will follow: nothing for the stream to do. False where so
  // many were counted that a mark is due, in case none follows: a thread may be stopped between the parts.
  bool part(const char* name);
  // Whether parts wait for a mark.
  bool has_parts() const { return parts_ > 0; }
  // The number that the next mark gets.
  uint32_t next() const { return issued_ + 1; }
  // Whether the operation of a number is known to have run.
  bool done(uint32_t number) const { return static_cast<int32_t>(*finished_ - number) >= 0; }
  // The oldest operation that is not known to have run; null if all are.
  const char* running() const;

private:
  static constexpr uint32_t kNames = 4096;  // operations that may be waiting and still be known by name
  static constexpr uint32_t kMostParts = 16;

  const char* names_[kNames] = {};
  uint32_t issued_ = 0;
  uint32_t parts_ = 0;                     // launched since; the next name is theirs
  volatile uint32_t* finished_ = nullptr;  // pinned; the stream writes it
  unsigned long long finished_on_device_ = 0;
  const PFN_cuStreamWriteValue32_v11070 write_value_;
};

}  // namespace vsa::cuda
