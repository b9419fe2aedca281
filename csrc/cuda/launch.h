#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

#include "ops/activation.h"
#include "ops/arithmetic.h"
#include "ops/coarse.h"
#include "ops/combination.h"
#include "ops/elementwise.h"
#include "ops/fine.h"
#include "ops/linear.h"
#include "ops/lists.h"
#include "ops/norm.h"
#include "ops/optimizer.h"
#include "ops/pooling.h"
#include "ops/rotary.h"
#include "ops/selection.h"
#include "ops/tiling.h"

namespace vsa::cuda {

class KeptLaunches;

// Where an operation's kernels go. The device is already the calling thread's current one.
struct Launch {
  cudaStream_t queue;  // not to be used but by stream() and launch_kernel()
  KeptLaunches* kept;  // where launch_kernel() keeps kernels back, or null
  int sm_count;
  int capability;     // 10 * major + minor: 80, 86, 90, ...
  int shared_memory;  // bytes that a block may ask for (the opt-in limit)
  bool chains;        // kernels wait for those ahead of them themselves, where they say so (cuda/chain.h)
  // Whether this operation's first kernel may run beside the last one of the operation ahead (cuda/chain.h): it reads
  // nothing that that one writes, and no memory that this operation gets is in use there. Over with a memset.
  bool beside;
  // For all that launch_kernel() (cuda/kernel.h) does not launch: what is kept back is launched first.
  cudaStream_t stream() const;

  // So many bytes that are 0 when an operation begins, and that its kernels leave as 0: a memset less, and always the
  // same address (cuda/kept_launches.h).
  static constexpr int64_t kCounterBytes = 256;
  int32_t* counters;

  // Memory of at least so many bytes, 256-byte aligned, that lives until the operation's kernels have run. Not zeroed.
  std::function<void*(int64_t bytes)> scratch;
  // The same, zeroed.
  std::function<void*(int64_t bytes)> zeroed;

  template <typename T>
  T* scratch_of(int64_t count) const {
    return static_cast<T*>(scratch(count * static_cast<int64_t>(sizeof(T))));
  }
  template <typename T>
  T* zeroed_of(int64_t count) const {
    return static_cast<T*>(zeroed(count * static_cast<int64_t>(sizeof(T))));
  }
};

// The portable kernels, for every GPU from compute capability 8.0 on. Each puts its kernels on the stream and returns:
// no synchronisation, no allocation but scratch, the same bits for the same inputs. Lists were checked before
// (cuda/lists_guard.h), so entries can be trusted. Empty problems (no batch, no tokens) launch nothing.
void launch(const PoolingForward&, const Launch&);
void launch(const PoolingTogether&, const Launch&);
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

void launch(const MatrixProduct&, const Launch&);
void launch(const ColumnSum&, const Launch&);
void launch(const NormForward&, const Launch&);
void launch(const NormBackward&, const Launch&);
void launch(const Rotary&, const Launch&);
void launch(const ActivationForward&, const Launch&);
void launch(const ActivationBackward&, const Launch&);
void launch(const Add&, const Launch&);
void launch(const Multiply&, const Launch&);
void launch(const GatedResidualForward&, const Launch&);
void launch(const GatedResidualBackward&, const Launch&);
void launch(const Sum&, const Launch&);
void launch(const Spread&, const Launch&);
void launch(const SquaredErrorForward&, const Launch&);
void launch(const SquaredErrorBackward&, const Launch&);
void launch(const CopyRows&, const Launch&);
void launch(const AdamW&, const Launch&);
void launch(const GradientNorm&, const Launch&);
void launch(const MovingAverage&, const Launch&);

}  // namespace vsa::cuda
