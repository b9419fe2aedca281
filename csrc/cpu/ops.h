#pragma once

#include "ops/operation.h"

// The CPU backend: every operation, fp32 accumulation, threads over heads and tiles. Each call runs to its end on the
// calling thread and the pool of cpu/parallel.h. Results are the same bits whatever the number of threads.
namespace vsa::cpu {

void run(const PoolingForward&);
void run(const PoolingTogether&);
void run(const PoolingBackward&);
void run(const CoarseForward&);
void run(const CoarseBackward&);
void run(const Selection&);
void run(const TransposeLists&);
void run(const ListsToBits&);
void run(const FineForward&);
void run(const FineBackward&);
void run(const CombinationForward&);
void run(const CombinationBackward&);
void run(const Tiling&);
void run(const Fill&);
void run(const Cast&);
void run(const RandomBits&);
void run(const RandomNormal&);

void run(const MatrixProduct&);
void run(const ColumnSum&);
void run(const NormForward&);
void run(const NormBackward&);
void run(const Rotary&);
void run(const ActivationForward&);
void run(const ActivationBackward&);
void run(const Add&);
void run(const Multiply&);
void run(const GatedResidualForward&);
void run(const GatedResidualBackward&);
void run(const Sum&);
void run(const Spread&);
void run(const SquaredErrorForward&);
void run(const SquaredErrorBackward&);
void run(const CopyRows&);
void run(const AdamW&);
void run(const GradientNorm&);
void run(const MovingAverage&);

}  // namespace vsa::cpu
