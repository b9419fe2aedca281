#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "cpu/convert.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "cpu/parallel.h"

namespace vsa::cpu {
namespace {

constexpr int64_t kChunk = 16384;  // elements of a work item: some microseconds

// body(begin, end) over [0, count) in chunks; every begin is a multiple of the chunk.
template <class Body>
void for_chunks(int64_t count, const Body& body) {
  parallel_for((count + kChunk - 1) / kChunk,
               [&](int64_t chunk) { body(chunk * kChunk, std::min((chunk + 1) * kChunk, count)); });
}

int32_t double_to_int32(double x) {
  if (std::isnan(x)) return 0;
  return static_cast<int32_t>(std::clamp(std::nearbyint(x), -2147483648.0, 2147483647.0));
}

// The bits of x in dtype, rounded once.
uint32_t encode(DType dtype, double x) {
  switch (dtype) {
    case DType::float32:
      return std::bit_cast<uint32_t>(static_cast<float>(x));
    case DType::bfloat16:
      return float_to_bfloat16(double_to_float_odd(x));
    case DType::float16:
      return float_to_float16(double_to_float_odd(x));
    default:
      return static_cast<uint32_t>(double_to_int32(x));
  }
}

struct Words {
  uint32_t w[4];
};

// Block n of Philox4x32-10: the counter (n, 0), ten rounds with the key raised by the Weyl constants in between.
Words philox(uint64_t block, uint64_t seed) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * c0, product1 = kMultiplier1 * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return {{c0, c1, c2, c3}};
}

// Two standard normals of two words, by Box-Muller.
void normal_pair(uint32_t first, uint32_t second, double* z) {
  const double u1 = (first + 0.5) * 0x1p-32, u2 = (second + 0.5) * 0x1p-32;
  const double radius = std::sqrt(-2 * std::log(u1)), angle = 2 * std::numbers::pi * u2;
  z[0] = radius * std::cos(angle);
  z[1] = radius * std::sin(angle);
}

}  // namespace

void run(const Fill& p) {
  const uint32_t bits = encode(p.dtype, p.value);
  for_chunks(p.count, [&](int64_t begin, int64_t end) {
    if (size_of(p.dtype) == 4) {
      std::fill_n(static_cast<uint32_t*>(p.output) + begin, end - begin, bits);
    } else {
      std::fill_n(static_cast<uint16_t*>(p.output) + begin, end - begin, static_cast<uint16_t>(bits));
    }
  });
}

void run(const Cast& p) {
  const Kernels& kernel = kernels();
  for_chunks(p.count, [&](int64_t begin, int64_t end) {
    const int64_t count = end - begin;
    const char* x = static_cast<const char*>(p.x) + begin * size_of(p.from);
    char* output = static_cast<char*>(p.output) + begin * size_of(p.to);
    if (p.from == p.to) {
      std::memcpy(output, x, static_cast<size_t>(count * size_of(p.to)));
    } else if (p.to == DType::float32) {
      kernel.to_float(p.from, count, x, reinterpret_cast<float*>(output));
    } else if (p.from == DType::float32) {
      kernel.from_float(p.to, count, reinterpret_cast<const float*>(x), output);
    } else if (p.from == DType::int32) {
      // An int32 may need more bits than a float has: rounding twice would not be rounding to nearest.
      const int32_t* integers = reinterpret_cast<const int32_t*>(x);
      uint16_t* halves = reinterpret_cast<uint16_t*>(output);
      for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(encode(p.to, integers[i]));
    } else {
      alignas(64) float exact[1024];  // a 16-bit float
      constexpr int64_t kStep = 1024;
      for (int64_t i = 0; i < count; i += kStep) {
        const int64_t step = std::min(kStep, count - i);
        kernel.to_float(p.from, step, x + i * size_of(p.from), exact);
        kernel.from_float(p.to, step, exact, output + i * size_of(p.to));
      }
    }
  });
}

void run(const RandomBits& p) {
  for_chunks(p.count, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += 4) {
      const Words words = philox(static_cast<uint64_t>(i / 4), p.seed);
      for (int64_t lane = 0; lane < std::min<int64_t>(4, end - i); ++lane) {
        p.output[i + lane] = static_cast<int32_t>(words.w[lane]);
      }
    }
  });
}

void run(const RandomNormal& p) {
  for_chunks(p.count, [&](int64_t begin, int64_t end) {
    float* floats = static_cast<float*>(p.output);
    uint16_t* halves = static_cast<uint16_t*>(p.output);
    for (int64_t i = begin; i < end; i += 4) {
      const Words words = philox(static_cast<uint64_t>(i / 4), p.seed);
      double z[4];
      normal_pair(words.w[0], words.w[1], z);
      normal_pair(words.w[2], words.w[3], z + 2);
      for (int64_t lane = 0; lane < std::min<int64_t>(4, end - i); ++lane) {
        const float value = static_cast<float>(p.mean + p.std * z[lane]);
        if (p.dtype == DType::float32) {
          floats[i + lane] = value;
        } else {
          halves[i + lane] = p.dtype == DType::bfloat16 ? float_to_bfloat16(value) : float_to_float16(value);
        }
      }
    }
  });
}

}  // namespace vsa::cpu
