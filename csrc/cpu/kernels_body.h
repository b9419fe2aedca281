// The kernels of kernels.h, included once by each kernels_*.cpp, which defines
//   VSA_ISA     the namespace, and the name of the instruction set
//   VSA_TARGET  the function attribute that turns it on; nothing but what bears it may be compiled with it, so that
//               no function shared with the rest of the program comes out with instructions a processor lacks
//   VSA_LANES   floats in a vector: 4, 8 or 16
//   VSA_ROWS    rows of C that the matrix product keeps in registers, two vectors each
// No include guard by intention.

#include <cstdint>
#include <cstring>

#include "cpu/convert.h"
#include "cpu/kernels.h"

#define VSA_INLINE VSA_TARGET inline __attribute__((always_inline))
#define VSA_STRING_(x) #x
#define VSA_STRING(x) VSA_STRING_(x)

namespace vsa::cpu::VSA_ISA {
namespace {

constexpr int kLanes = VSA_LANES;
constexpr int kRows = VSA_ROWS;

typedef float Vec __attribute__((vector_size(4 * VSA_LANES)));
typedef int32_t IntVec __attribute__((vector_size(4 * VSA_LANES)));
typedef float Quad __attribute__((vector_size(16)));
typedef uint32_t UintVec __attribute__((vector_size(4 * VSA_LANES)));

VSA_INLINE Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}

VSA_INLINE void store(float* p, Vec x) {
  std::memcpy(p, &x, sizeof(x));
}

// x - 0 is x, for -0 too.
VSA_INLINE Vec splat(float x) {
  return x - Vec{};
}

VSA_INLINE float sum_lanes(Vec x) {
  float sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += x[lane];
  return sum;
}

// exp to 1 ulp; 0 below the smallest normal number (subnormals are slow), inf above the largest, NaN for NaN.
// exp(x) = 2^n exp(r), r = x - n ln 2, |r| <= ln(2) / 2; the polynomial is a minimax fit of (exp(r) - 1 - r) / r^2.
VSA_INLINE Vec exp(Vec x) {
  const Vec smallest = splat(-87.33654f), largest = splat(89.0f);
  Vec inside = x < smallest ? smallest : x;
  inside = inside > largest ? largest : inside;
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
  const Vec shifted = inside * splat(1.44269504f) + magic;
  const Vec n = shifted - magic;
  const Vec r = inside - n * splat(0.693145752f) - n * splat(1.42860682e-6f);  // ln 2 in two parts, the first exact
  Vec p = splat(0.0013814467f);
  p = p * r + splat(0.0083687808f);
  p = p * r + splat(0.041668393f);
  p = p * r + splat(0.16666520f);
  p = p * r + splat(0.49999994f);
  p = p * (r * r) + r + splat(1.0f);
  // 2^n as the product of two powers, for n may be 128.
  const UintVec exponent = (UintVec)shifted - (UintVec)magic;
  const UintVec half = (UintVec)((IntVec)exponent >> 1);
  p = p * (Vec)((half + 127) << 23) * (Vec)((exponent - half + 127) << 23);
  return x < smallest ? Vec{} : p;
}

// R rows and V vectors of C in registers.
template <int R, int V>
VSA_INLINE void product_block(const Product& p, const float* a, const float* b, float* c) {
  Vec sum[R][V];
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) sum[r][v] = p.accumulate ? load(c + r * p.c_row + v * kLanes) : Vec{};
  }
  const int64_t a_row = p.a_row, a_column = p.a_column, b_row = p.b_row;
  for (int64_t k = p.k; k > 0; --k) {
    Vec right[V];
    for (int v = 0; v < V; ++v) right[v] = load(b + v * kLanes);
    for (int r = 0; r < R; ++r) {
      const Vec left = splat(a[r * a_row]);
      for (int v = 0; v < V; ++v) sum[r][v] += left * right[v];
    }
    a += a_column;
    b += b_row;
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) store(c + r * p.c_row + v * kLanes, sum[r][v]);
  }
}

template <int V>
VSA_INLINE void product_columns(const Product& p, int64_t column) {
  const float* b = p.b + column;
  float* c = p.c + column;
  int64_t row = 0;
  for (; row + kRows <= p.m; row += kRows) {
    product_block<kRows, V>(p, p.a + row * p.a_row, b, c + row * p.c_row);
  }
  if (kRows > 4 && row + 4 <= p.m) {
    product_block<4, V>(p, p.a + row * p.a_row, b, c + row * p.c_row);
    row += 4;
  }
  for (; row < p.m; ++row) product_block<1, V>(p, p.a + row * p.a_row, b, c + row * p.c_row);
}

VSA_TARGET void product(const Product& p) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= p.n; column += 2 * kLanes) product_columns<2>(p, column);
  if (column < p.n) product_columns<1>(p, column);  // n is a multiple of 16: only with 16 lanes
}

VSA_TARGET bool softmax_step(const SoftmaxStep& p) {
  const Vec scale = splat(p.scale), none = splat(-__builtin_inff());
  IntVec changed{};
  for (int64_t query = 0; query < p.queries; query += kLanes) {
    float* s = p.s + query;
    const Vec before = load(p.maximum + query);
    Vec maximum = before;
    for (int64_t key = 0; key < p.keys; ++key) {
      const Vec x = load(s + key * p.s_row) * scale;
      maximum = x > maximum ? x : maximum;  // passes over NaN, which reaches the sum below
    }
    const Vec reference = maximum == none ? Vec{} : maximum;  // -inf - -inf would be NaN
    const Vec correction = exp(before - reference);
    Vec sum = load(p.sum + query) * correction;
    for (int64_t key = 0; key < p.keys; ++key) {
      const Vec x = exp(load(s + key * p.s_row) * scale - reference);
      store(s + key * p.s_row, x);
      sum += x;
    }
    store(p.maximum + query, maximum);
    store(p.sum + query, sum);
    store(p.correction + query, correction);
    changed |= correction != splat(1.0f);
  }
  int32_t any = 0;
  for (int lane = 0; lane < kLanes; ++lane) any |= changed[lane];
  return any != 0;
}

VSA_INLINE void softmax_gradient(const SoftmaxGradient& p, int64_t at, Vec lse, Vec delta) {
  const auto alive = lse != splat(-__builtin_inff());
  const Vec probability = alive ? exp(load(p.s + at) * splat(p.scale) - lse) : Vec{};
  const Vec gradient = alive ? probability * (load(p.dp + at) - delta) : Vec{};
  store(p.s + at, probability);
  store(p.dp + at, gradient);
}

VSA_TARGET void softmax_gradient_by_row(const SoftmaxGradient& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const Vec lse = splat(p.lse[row]), delta = splat(p.delta[row]);
    for (int64_t column = 0; column < p.columns; column += kLanes) {
      softmax_gradient(p, row * p.stride + column, lse, delta);
    }
  }
}

VSA_TARGET void softmax_gradient_by_column(const SoftmaxGradient& p) {
  for (int64_t column = 0; column < p.columns; column += kLanes) {
    const Vec lse = load(p.lse + column), delta = load(p.delta + column);
    for (int64_t row = 0; row < p.rows; ++row) softmax_gradient(p, row * p.stride + column, lse, delta);
  }
}

VSA_TARGET float dot(int64_t count, const float* x, const float* y) {
  Vec sum{};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) sum += load(x + i) * load(y + i);
  float total = sum_lanes(sum);
  for (; i < count; ++i) total += x[i] * y[i];
  return total;
}

VSA_INLINE Quad interleave_low(Quad x, Quad y) {
  return Quad{x[0], y[0], x[1], y[1]};
}
VSA_INLINE Quad interleave_high(Quad x, Quad y) {
  return Quad{x[2], y[2], x[3], y[3]};
}

// A 4 x 4 block, in vectors of four whatever the instruction set.
VSA_INLINE void transpose_block(const float* x, int64_t x_row, float* output, int64_t output_row) {
  Quad a, b, c, d;
  std::memcpy(&a, x, sizeof(a));
  std::memcpy(&b, x + x_row, sizeof(b));
  std::memcpy(&c, x + 2 * x_row, sizeof(c));
  std::memcpy(&d, x + 3 * x_row, sizeof(d));
  const Quad ac_low = interleave_low(a, c), ac_high = interleave_high(a, c);
  const Quad bd_low = interleave_low(b, d), bd_high = interleave_high(b, d);
  const Quad rows[4] = {interleave_low(ac_low, bd_low), interleave_high(ac_low, bd_low),
                        interleave_low(ac_high, bd_high), interleave_high(ac_high, bd_high)};
  for (int i = 0; i < 4; ++i) std::memcpy(output + i * output_row, &rows[i], sizeof(Quad));
}

VSA_TARGET void transpose(int64_t rows, int64_t columns, const float* x, int64_t x_row, float* output,
                          int64_t output_row, int64_t padded_rows) {
  const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
  for (int64_t column = 0; column < whole_columns; column += 4) {
    for (int64_t row = 0; row < whole_rows; row += 4) {
      transpose_block(x + row * x_row + column, x_row, output + column * output_row + row, output_row);
    }
  }
  for (int64_t column = 0; column < columns; ++column) {
    const int64_t done = column < whole_columns ? whole_rows : 0;
    float* to = output + column * output_row;
    for (int64_t row = done; row < rows; ++row) to[row] = x[row * x_row + column];
    for (int64_t row = rows; row < padded_rows; ++row) to[row] = 0;
  }
}

// Bit by bit from the top: the largest number that at least k elements reach. Comparing is signed, so the number is
// kept with its top bit flipped.
VSA_TARGET int32_t kth_largest(int64_t count, const int32_t* x, int64_t k) {
  constexpr uint32_t kTop = 0x80000000u;
  uint32_t found = 0;
  for (uint32_t bit = kTop; bit != 0; bit >>= 1) {
    const int32_t candidate = static_cast<int32_t>((found | bit) ^ kTop);
    int32_t reach = 0;
    for (int64_t i = 0; i < count; ++i) reach += x[i] >= candidate;
    if (reach >= k) found |= bit;
  }
  return static_cast<int32_t>(found ^ kTop);
}

VSA_TARGET void to_float(DType dtype, int64_t count, const void* x, float* output) {
  const uint16_t* half = static_cast<const uint16_t*>(x);
  if (dtype == DType::float32) {
    std::memcpy(output, x, static_cast<size_t>(count) * sizeof(float));
  } else if (dtype == DType::bfloat16) {
    for (int64_t i = 0; i < count; ++i) output[i] = bfloat16_to_float(half[i]);
  } else if (dtype == DType::float16) {
    for (int64_t i = 0; i < count; ++i) output[i] = float16_to_float(half[i]);
  } else {
    const int32_t* integer = static_cast<const int32_t*>(x);
    for (int64_t i = 0; i < count; ++i) output[i] = static_cast<float>(integer[i]);
  }
}

VSA_TARGET void from_float(DType dtype, int64_t count, const float* x, void* output) {
  uint16_t* half = static_cast<uint16_t*>(output);
  if (dtype == DType::float32) {
    std::memcpy(output, x, static_cast<size_t>(count) * sizeof(float));
  } else if (dtype == DType::bfloat16) {
    for (int64_t i = 0; i < count; ++i) half[i] = float_to_bfloat16(x[i]);
  } else if (dtype == DType::float16) {
    for (int64_t i = 0; i < count; ++i) half[i] = float_to_float16(x[i]);
  } else {
    int32_t* integer = static_cast<int32_t*>(output);
    for (int64_t i = 0; i < count; ++i) integer[i] = float_to_int32(x[i]);
  }
}

}  // namespace
}  // namespace vsa::cpu::VSA_ISA

#include "cpu/activation_body.h"

namespace vsa::cpu::VSA_ISA {
namespace {

constexpr Kernels table = {.instruction_set = VSA_STRING(VSA_ISA),
                           .product = product,
                           .softmax_step = softmax_step,
                           .softmax_gradient_by_row = softmax_gradient_by_row,
                           .softmax_gradient_by_column = softmax_gradient_by_column,
                           .dot = dot,
                           .transpose = transpose,
                           .kth_largest = kth_largest,
                           .activation_forward = activation_forward,
                           .activation_backward = activation_backward,
                           .to_float = to_float,
                           .from_float = from_float};

}  // namespace
}  // namespace vsa::cpu::VSA_ISA
