#pragma once

#include "ops/operation.h"

// The CPU backend: every operation, fp32 accumulation, threads over heads and tiles. Each call runs to its end on the
// calling thread and the pool of cpu/parallel.h. Results are the same bits whatever the number of threads.
namespace vsa::cpu {

void run(const PoolingForward&);
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

}  // namespace vsa::cpu
