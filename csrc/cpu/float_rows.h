#pragma once

#include <cstdint>

#include "cpu/kernels.h"

// Elements of a tensor of any float dtype as fp32: in place where they are that, else by way of a buffer.
namespace vsa::cpu {

// x[begin, begin + count) as floats; `room` has space for them.
inline const float* floats_of(DType dtype, const void* x, int64_t begin, int64_t count, float* room) {
  if (dtype == DType::float32) return static_cast<const float*>(x) + begin;
  kernels().to_float(dtype, count, static_cast<const uint16_t*>(x) + begin, room);
  return room;
}

// Where to put floats that become output[begin, begin + count) with write().
struct FloatOutput {
  FloatOutput(DType dtype_, void* output, int64_t begin, int64_t count_, float* room)
      : dtype(dtype_),
        count(count_),
        to(static_cast<char*>(output) + begin * size_of(dtype_)),
        floats(dtype_ == DType::float32 ? reinterpret_cast<float*>(to) : room) {}

  void write() const {
    if (dtype != DType::float32) kernels().from_float(dtype, count, floats, to);
  }

  DType dtype;
  int64_t count;
  char* to;
  float* floats;
};

}  // namespace vsa::cpu
