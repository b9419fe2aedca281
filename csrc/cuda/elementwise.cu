#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "cuda/chain.h"
#include "cuda/check.h"
#include "cuda/convert.cuh"
#include "cuda/launch.h"

// Fill, Cast and the random numbers, each with the same bits as on the CPU (cpu/elementwise.cpp).
namespace vsa::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 4;  // of a thread: their loads are under way together

unsigned blocks_for(int64_t units, int64_t per_block) {
  const int64_t blocks = (units + per_block - 1) / per_block;
  VSA_CHECK(blocks <= INT32_MAX, "too many elements for a launch");
  return static_cast<unsigned>(std::max<int64_t>(blocks, 1));
}

bool aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// `count` elements as one access.
template <typename T, int count>
struct alignas(sizeof(T) * count) Pack {
  T x[count];
};

// ---- Fill ----

// Pattern over whole 16-byte vectors in the middle; single elements before and after.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    fill_kernel(T* output, int64_t count, int64_t head, int64_t vectors, T value) {
  constexpr int kWidth = 16 / sizeof(T);
  using Vector = Pack<T, kWidth>;
  Vector pattern;
#pragma unroll
  for (int i = 0; i < kWidth; ++i) pattern.x[i] = value;
  Vector* body = reinterpret_cast<Vector*>(output + head);
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kPacks) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int64_t at = first + i * kThreads;
    if (at < vectors) body[at] = pattern;
  }
  if (blockIdx.x != 0) return;
  const int64_t tail = head + vectors * kWidth;
  if (threadIdx.x < head) output[threadIdx.x] = value;
  if (tail + threadIdx.x < count) output[tail + threadIdx.x] = value;
}

template <typename T>
void fill(void* output, int64_t count, T value, const Launch& launch) {
  constexpr int64_t kWidth = 16 / sizeof(T);
  const int64_t over = static_cast<int64_t>(reinterpret_cast<uintptr_t>(output) % 16 / sizeof(T));
  const int64_t head = std::min(count, over == 0 ? 0 : kWidth - over), vectors = (count - head) / kWidth;
  launch_kernel(fill_kernel<T>, "fill_kernel", launch, blocks_for(vectors, kThreads * kPacks), kThreads, 0,
                static_cast<T*>(output), count, head, vectors, value);
}

int32_t double_to_int32(double x) {
  if (std::isnan(x)) return 0;
  return static_cast<int32_t>(std::clamp(std::nearbyint(x), -2147483648.0, 2147483647.0));
}

// The bits of x in dtype, rounded once.
uint32_t encode(DType dtype, double x) {
  switch (dtype) {
    case DType::float32:
      return float_bits(static_cast<float>(x));
    case DType::bfloat16:
      return float_to_bfloat16(double_to_float_odd(x));
    case DType::float16:
      return float_to_float16(double_to_float_odd(x));
    default:
      return static_cast<uint32_t>(double_to_int32(x));
  }
}

// ---- Cast ----

// An element type of a tensor: what it is stored as, and how it becomes a float and back.
template <DType dtype>
struct Element;
template <>
struct Element<DType::float32> {
  using Bits = uint32_t;
  static __device__ __forceinline__ float decode(uint32_t x) { return __uint_as_float(x); }
  static __device__ __forceinline__ uint32_t encode(float x) { return __float_as_uint(x); }
};
template <>
struct Element<DType::bfloat16> {
  using Bits = uint16_t;
  static __device__ __forceinline__ float decode(uint16_t x) { return bfloat16_to_float(x); }
  static __device__ __forceinline__ uint16_t encode(float x) { return float_to_bfloat16(x); }
};
template <>
struct Element<DType::float16> {
  using Bits = uint16_t;
  static __device__ __forceinline__ float decode(uint16_t x) { return float16_to_float(x); }
  static __device__ __forceinline__ uint16_t encode(float x) { return float_to_float16(x); }
};
template <>
struct Element<DType::int32> {
  using Bits = uint32_t;
  static __device__ __forceinline__ uint32_t encode(float x) { return static_cast<uint32_t>(float_to_int32(x)); }
};

template <DType from, DType to>
__device__ __forceinline__ typename Element<to>::Bits convert(typename Element<from>::Bits x) {
  if constexpr (from == DType::int32) {
    const int32_t integer = static_cast<int32_t>(x);
    if constexpr (to == DType::float32) {
      return __float_as_uint(__int2float_rn(integer));
    } else {
      // An int32 may need more bits than a float has: rounding twice would not be rounding to nearest.
      return Element<to>::encode(int32_to_float_odd(integer));
    }
  } else {
    return Element<to>::encode(Element<from>::decode(x));
  }
}

// The first `packs` packs as vectors, 16 bytes of the wider type each, what is left element by element.
template <DType from, DType to>
__global__ void __launch_bounds__(kThreads)
    cast_kernel(const typename Element<from>::Bits* x, typename Element<to>::Bits* output, int64_t count,
                int64_t packs) {
  using From = typename Element<from>::Bits;
  using To = typename Element<to>::Bits;
  constexpr int kWidth = 16 / (sizeof(From) > sizeof(To) ? sizeof(From) : sizeof(To));
  const int64_t first = int64_t{blockIdx.x} * (kThreads * kPacks) + threadIdx.x;
  Pack<From, kWidth> in[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int64_t at = first + i * kThreads;
    if (at < packs) in[i] = reinterpret_cast<const Pack<From, kWidth>*>(x)[at];
  }
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    const int64_t at = first + i * kThreads;
    if (at >= packs) continue;
    Pack<To, kWidth> out;
#pragma unroll
    for (int e = 0; e < kWidth; ++e) out.x[e] = convert<from, to>(in[i].x[e]);
    reinterpret_cast<Pack<To, kWidth>*>(output)[at] = out;
  }
  const int64_t step = int64_t{gridDim.x} * kThreads;
  for (int64_t at = packs * kWidth + blockIdx.x * int64_t{kThreads} + threadIdx.x; at < count; at += step) {
    output[at] = convert<from, to>(x[at]);
  }
}

template <DType from, DType to>
void cast(const Cast& p, const Launch& launch) {
  using From = typename Element<from>::Bits;
  using To = typename Element<to>::Bits;
  constexpr int64_t kWidth = 16 / std::max(sizeof(From), sizeof(To));
  const bool vectors = aligned(p.x, kWidth * sizeof(From)) && aligned(p.output, kWidth * sizeof(To));
  const int64_t packs = vectors ? p.count / kWidth : 0;
  const unsigned blocks = blocks_for(vectors ? packs : p.count, kThreads * kPacks);
  cast_kernel<from, to><<<blocks, kThreads, 0, launch.stream()>>>(static_cast<const From*>(p.x),
                                                                  static_cast<To*>(p.output), p.count, packs);
  check_launch("cast_kernel");
}

template <DType from>
void cast_from(const Cast& p, const Launch& launch) {
  switch (p.to) {
    case DType::float32:
      if constexpr (from != DType::float32) cast<from, DType::float32>(p, launch);
      break;
    case DType::bfloat16:
      if constexpr (from != DType::bfloat16) cast<from, DType::bfloat16>(p, launch);
      break;
    case DType::float16:
      if constexpr (from != DType::float16) cast<from, DType::float16>(p, launch);
      break;
    case DType::int32:
      if constexpr (from != DType::int32) cast<from, DType::int32>(p, launch);
      break;
  }
}

// ---- Random numbers ----

// Block n of Philox4x32-10: the counter (n, 0), ten rounds with the key raised by the Weyl constants in between.
__device__ __forceinline__ uint4 philox(uint64_t block, uint64_t seed) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(kMultiplier0, c0), low0 = kMultiplier0 * c0;
    const uint32_t high1 = __umulhi(kMultiplier1, c2), low1 = kMultiplier1 * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return make_uint4(c0, c1, c2, c3);
}

// Elements 4 n .. 4 n + 3, as one access where that is possible.
template <typename T>
__device__ __forceinline__ void store_four(T* output, int64_t block, int64_t count, bool vectors, const T (&x)[4]) {
  const int64_t at = 4 * block;
  if (vectors && at + 4 <= count) {
    Pack<T, 4> pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) pack.x[i] = x[i];
    *reinterpret_cast<Pack<T, 4>*>(output + at) = pack;
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (at + i < count) output[at + i] = x[i];
  }
}

__global__ void __launch_bounds__(kThreads)
    random_bits_kernel(uint64_t seed, int32_t* output, int64_t count, bool vectors) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (4 * block >= count) return;
  const uint4 words = philox(static_cast<uint64_t>(block), seed);
  const int32_t x[4] = {static_cast<int32_t>(words.x), static_cast<int32_t>(words.y), static_cast<int32_t>(words.z),
                        static_cast<int32_t>(words.w)};
  store_four(output, block, count, vectors, x);
}

// Two standard normals of two words, by Box-Muller: every step a rounded one in float64, as on the CPU. log, cos and
// sin may differ from the CPU's in the last of 53 bits, which would show in the 24 of the result less than once in
// 10^9 numbers; of 1.2 * 10^9 none did.
__device__ __forceinline__ void normal_pair(uint32_t first, uint32_t second, double* z) {
  constexpr double kTwoPi = 6.283185307179586476925286766559;
  const double u1 = __dmul_rn(__dadd_rn(first, 0.5), 0x1p-32), u2 = __dmul_rn(__dadd_rn(second, 0.5), 0x1p-32);
  const double radius = __dsqrt_rn(__dmul_rn(-2.0, log(u1)));
  double sine, cosine;
  sincos(__dmul_rn(kTwoPi, u2), &sine, &cosine);
  z[0] = __dmul_rn(radius, cosine);
  z[1] = __dmul_rn(radius, sine);
}

template <DType dtype>
__global__ void __launch_bounds__(kThreads)
    random_normal_kernel(uint64_t seed, double mean, double std, typename Element<dtype>::Bits* output, int64_t count,
                         bool vectors) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (4 * block >= count) return;
  const uint4 words = philox(static_cast<uint64_t>(block), seed);
  double z[4];
  normal_pair(words.x, words.y, z);
  normal_pair(words.z, words.w, z + 2);
  typename Element<dtype>::Bits x[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[i] = Element<dtype>::encode(__double2float_rn(__dadd_rn(mean, __dmul_rn(std, z[i]))));
  }
  store_four(output, block, count, vectors, x);
}

template <DType dtype>
void random_normal(const RandomNormal& p, const Launch& launch) {
  using Bits = typename Element<dtype>::Bits;
  random_normal_kernel<dtype><<<blocks_for((p.count + 3) / 4, kThreads), kThreads, 0, launch.stream()>>>(
      p.seed, p.mean, p.std, static_cast<Bits*>(p.output), p.count, aligned(p.output, 4 * sizeof(Bits)));
  check_launch("random_normal_kernel");
}

}  // namespace

void launch(const Fill& p, const Launch& launch) {
  if (p.count == 0) return;
  const uint32_t bits = encode(p.dtype, p.value);
  if (size_of(p.dtype) == 4) {
    fill<uint32_t>(p.output, p.count, bits, launch);
  } else {
    fill<uint16_t>(p.output, p.count, static_cast<uint16_t>(bits), launch);
  }
}

void launch(const Cast& p, const Launch& launch) {
  if (p.count == 0) return;
  if (p.from == p.to) {
    check(cudaMemcpyAsync(p.output, p.x, static_cast<size_t>(p.count * size_of(p.to)), cudaMemcpyDeviceToDevice,
                          launch.stream()),
          "cudaMemcpyAsync");
    return;
  }
  switch (p.from) {
    case DType::float32:
      return cast_from<DType::float32>(p, launch);
    case DType::bfloat16:
      return cast_from<DType::bfloat16>(p, launch);
    case DType::float16:
      return cast_from<DType::float16>(p, launch);
    case DType::int32:
      return cast_from<DType::int32>(p, launch);
  }
}

void launch(const RandomBits& p, const Launch& launch) {
  if (p.count == 0) return;
  random_bits_kernel<<<blocks_for((p.count + 3) / 4, kThreads), kThreads, 0, launch.stream()>>>(
      p.seed, p.output, p.count, aligned(p.output, 16));
  check_launch("random_bits_kernel");
}

void launch(const RandomNormal& p, const Launch& launch) {
  if (p.count == 0) return;
  switch (p.dtype) {
    case DType::float32:
      return random_normal<DType::float32>(p, launch);
    case DType::bfloat16:
      return random_normal<DType::bfloat16>(p, launch);
    case DType::float16:
      return random_normal<DType::float16>(p, launch);
    default:
      VSA_CHECK(false, "normal numbers are floats");
  }
}

}  // namespace vsa::cuda
