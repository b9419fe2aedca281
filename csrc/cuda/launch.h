#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

#include "core/error.h"
#include "ops/coarse.h"
#include "ops/combination.h"
#include "ops/elementwise.h"
#include "ops/fine.h"
#include "ops/lists.h"
#include "ops/pooling.h"
#include "ops/selection.h"
#include "ops/tiling.h"

namespace vsa::cuda {

// Where an operation's kernels go. The device is already the calling thread's current one.
struct Launch {
  cudaStream_t stream;
  int sm_count;
  int capability;     // 10 * major + minor: 80, 86, 90, ...
  int shared_memory;  // bytes that a block may ask for (the opt-in limit)
  // Memory of at least so many bytes, 256-byte aligned, that lives until the operation's kernels have run. Not zeroed.
  std::function<void*(int64_t bytes)> scratch;

  template <typename T>
  T* scratch_of(int64_t count) const {
    return static_cast<T*>(scratch(count * static_cast<int64_t>(sizeof(T))));
  }
};

// The portable kernels, for every GPU from compute capability 8.0 on. Each puts its kernels on the stream and returns:
// no synchronisation, no allocation but scratch, the same bits for the same inputs. Lists were checked before
// (cuda/lists_guard.h), so entries can be trusted. Empty problems (no batch, no tokens) launch nothing.
void launch(const PoolingForward&, const Launch&);
void launch(const PoolingBackward&, const Launch&);
void launch(const CoarseForward&, const Launch&);
void launch(const CoarseBackward&, const Launch&);
void launch(const Selection&, const Launch&);
void launch(const TransposeLists&, const Launch&);
void launch(const ListsToBits&, const Launch&);
void launch(const FineForward&, const Launch&);
void launch(const FineBackward&, const Launch&);
void launch(const CombinationForward&, const Launch&);
void launch(const CombinationBackward&, const Launch&);
void launch(const Tiling&, const Launch&);
void launch(const Fill&, const Launch&);
void launch(const Cast&, const Launch&);
void launch(const RandomBits&, const Launch&);
void launch(const RandomNormal&, const Launch&);

// Operations that have no kernels here yet: lib/nn refuses tensors on a GPU before they come this far.
template <typename Params>
void launch(const Params&, const Launch&) {
  throw Error("ERR_BACKEND", "got tensors on a GPU, wanted ones on the CPU: this operation has no GPU kernels yet");
}

}  // namespace vsa::cuda
