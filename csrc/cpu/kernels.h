#pragma once

#include <cstdint>

#include "core/dtype.h"
#include "ops/activation.h"

// The inner loops of the CPU backend, compiled for several instruction sets (kernels_*.cpp); the best one that the
// processor has is chosen at run time, so that one binary runs everywhere.
namespace vsa::cpu {

// C[m, n] = A[m, k] B[k, n], or C += A B. n is a multiple of 16. Strides in elements. Every element of C is one chain
// of multiply-adds in ascending k, whatever its place: equal rows and columns give equal bits.
struct Product {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_column;
  const float* b;
  int64_t b_row;  // columns are adjacent
  float* c;
  int64_t c_row;
  bool accumulate;
};

// One step of the online softmax over a block of transposed scores, a column a query: s becomes
// exp(scale * s - maximum), with the running maximum and sum (both of all keys so far) updated.
struct SoftmaxStep {
  int64_t keys, queries;  // queries is a multiple of 16
  float scale;
  float* s;  // [keys, s_row]
  int64_t s_row;
  float* maximum;     // [queries], -inf before the first step
  float* sum;         // [queries], 0 before the first step
  float* correction;  // [queries], written: what the results so far must be multiplied by
};

// s becomes P = exp(scale * s - lse) and dp becomes dS = P * (dp - delta), both 0 where lse is -inf. lse and delta
// belong to the rows or to the columns of the block.
struct SoftmaxGradient {
  int64_t rows, columns;  // columns is a multiple of 16
  float scale;
  float* s;   // [rows, stride]
  float* dp;  // [rows, stride]
  int64_t stride;
  const float* lse;
  const float* delta;
};

struct Kernels {
  const char* instruction_set;
  void (*product)(const Product&);
  bool (*softmax_step)(const SoftmaxStep&);  // true if a correction differs from 1
  void (*softmax_gradient_by_row)(const SoftmaxGradient&);
  void (*softmax_gradient_by_column)(const SoftmaxGradient&);
  float (*dot)(int64_t count, const float* x, const float* y);
  // output[column, row] = x[row, column]; columns `rows` to `padded_rows` of the output are written as 0.
  void (*transpose)(int64_t rows, int64_t columns, const float* x, int64_t x_row, float* output, int64_t output_row,
                    int64_t padded_rows);
  int32_t (*kth_largest)(int64_t count, const int32_t* x, int64_t k);  // 1 <= k <= count < 2^31
  // To about two units in the last place; below the smallest normal number 0.
  void (*activation_forward)(Activation kind, int64_t count, const float* x, float* output);
  void (*activation_backward)(Activation kind, int64_t count, const float* x, const float* doutput, float* dx);
  void (*to_float)(DType dtype, int64_t count, const void* x, float* output);
  void (*from_float)(DType dtype, int64_t count, const float* x, void* output);
};

const Kernels& kernels();  // the best for this processor

// The tables themselves, null where the architecture of this build does not have the instructions at all.
const Kernels* generic_kernels();
const Kernels* avx2_kernels();
const Kernels* avx512_kernels();

}  // namespace vsa::cpu
