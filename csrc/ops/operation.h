#pragma once

#include <iterator>
#include <variant>

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

namespace vsa {

// Any one operation with its parameters, as a device's queue takes it.
using Operation = std::variant<PoolingForward, PoolingTogether, PoolingBackward, CoarseForward, CoarseBackward,
                               Selection, TransposeLists, ListsToBits, FineForward, FineBackward, CombinationForward,
                               CombinationBackward, Tiling, Fill, Cast, RandomBits, RandomNormal, MatrixProduct,
                               ColumnSum, NormForward, NormBackward, Rotary, ActivationForward, ActivationBackward, Add,
                               Multiply, GatedResidualForward, GatedResidualBackward, Sum, Spread, SquaredErrorForward,
                               SquaredErrorBackward, CopyRows, AdamW, GradientNorm, MovingAverage>;

// By the names the binding exports them under; for error messages. In the order of Operation.
inline const char* name_of(const Operation& operation) {
  constexpr const char* kNames[] = {"poolingForward",
                                    "poolingTogether",
                                    "poolingBackward",
                                    "coarseForward",
                                    "coarseBackward",
                                    "selection",
                                    "transposeLists",
                                    "listsToBits",
                                    "fineForward",
                                    "fineBackward",
                                    "combinationForward",
                                    "combinationBackward",
                                    "tiling",
                                    "fill",
                                    "cast",
                                    "randomBits",
                                    "randomNormal",
                                    "matrixProduct",
                                    "columnSum",
                                    "normForward",
                                    "normBackward",
                                    "rotary",
                                    "activationForward",
                                    "activationBackward",
                                    "add",
                                    "multiply",
                                    "gatedResidualForward",
                                    "gatedResidualBackward",
                                    "sum",
                                    "spread",
                                    "squaredErrorForward",
                                    "squaredErrorBackward",
                                    "copyRows",
                                    "adamW",
                                    "gradientNorm",
                                    "movingAverage"};
  static_assert(std::size(kNames) == std::variant_size_v<Operation>, "every operation has a name");
  return kNames[operation.index()];
}

}  // namespace vsa
