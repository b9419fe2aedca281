#include "cuda/check.h"
#include "cuda/group_sums.cuh"
#include "cuda/launch.h"
#include "cuda/vectors.cuh"

// Operations whose columns have numbers of their own, a gate or a sum: a thread keeps those of a vector of columns in
// registers and walks down the rows of a part. ColumnSum and both directions of GatedResidual. Bound by memory.
namespace vsa::cuda {
namespace {

constexpr int kLanes = 32;  // column vectors of a block
constexpr int kRows = 8;    // of a block, side by side
constexpr int kBlocksPerSm = 3;

template <typename T, int V>
struct SumRows {
  static constexpr int kAhead = 8;  // rows of a thread whose loads are under way together
  static constexpr bool kSums = true;
  using In = Bits<T, V>;
  const T* x;

  __device__ void begin(int64_t) {}
  __device__ In read(int64_t at) const { return *reinterpret_cast<const In*>(x + at); }
  __device__ void work(int64_t, const In& in, Vector<float, V>& sum) const {
    const Vector<float, V> value = to_float<T, V>(in);
#pragma unroll
    for (int c = 0; c < V; ++c) sum.element[c] += value.element[c];
  }
};

template <typename T, int V>
struct GateForward {
  static constexpr int kAhead = 4;
  static constexpr bool kSums = false;
  struct In {
    Bits<T, V> x, branch;
  };
  const T* x;
  const T* branch;
  const float* gates;
  T* output;
  Vector<float, V> gate;

  __device__ void begin(int64_t at) { gate = load_floats<V>(gates + at); }
  __device__ In read(int64_t at) const {
    return {*reinterpret_cast<const Bits<T, V>*>(x + at), *reinterpret_cast<const Bits<T, V>*>(branch + at)};
  }
  __device__ void work(int64_t at, const In& in, Vector<float, V>&) const {
    Vector<float, V> result = to_float<T, V>(in.x);
    const Vector<float, V> added = to_float<T, V>(in.branch);
#pragma unroll
    for (int c = 0; c < V; ++c) result.element[c] += added.element[c] * gate.element[c];
    store<T, V>(output + at, result);
  }
};

template <typename T, int V>
struct GateBackward {
  static constexpr int kAhead = 4;
  static constexpr bool kSums = true;
  struct In {
    Bits<T, V> branch, doutput;
  };
  const T* branch;
  const T* doutput;
  const float* gates;
  T* dbranch;
  Vector<float, V> gate;

  __device__ void begin(int64_t at) { gate = load_floats<V>(gates + at); }
  __device__ In read(int64_t at) const {
    return {*reinterpret_cast<const Bits<T, V>*>(branch + at), *reinterpret_cast<const Bits<T, V>*>(doutput + at)};
  }
  __device__ void work(int64_t at, const In& in, Vector<float, V>& dgate) const {
    const Vector<float, V> value = to_float<T, V>(in.branch), gradient = to_float<T, V>(in.doutput);
    Vector<float, V> result;
#pragma unroll
    for (int c = 0; c < V; ++c) {
      dgate.element[c] += gradient.element[c] * value.element[c];
      result.element[c] = gradient.element[c] * gate.element[c];
    }
    store<T, V>(dbranch + at, result);
  }
};

// partial: [groups, parts, width], where there are sums.
template <int V, typename F>
__global__ void __launch_bounds__(kLanes* kRows, kBlocksPerSm)
    columns_kernel(F f, RowParts parts, int64_t width, int64_t blocks, float* partial) {
  __shared__ Vector<float, V> sums[F::kSums ? kRows : 1][F::kSums ? kLanes : 1];
  const int64_t part = blockIdx.x / blocks;
  const int64_t column = (blockIdx.x % blocks * kLanes + threadIdx.x) * V;
  const bool inside = column < width;
  Vector<float, V> sum = {};
  if (inside) {
    f.begin(parts.group(part) * width + column);
    const int64_t end = parts.end(part);
#pragma unroll 1
    for (int64_t row = parts.begin(part) + threadIdx.y; row < end; row += kRows * F::kAhead) {
      typename F::In in[F::kAhead];
#pragma unroll
      for (int i = 0; i < F::kAhead; ++i) {
        if (row + i * kRows < end) in[i] = f.read((row + i * kRows) * width + column);
      }
#pragma unroll
      for (int i = 0; i < F::kAhead; ++i) {
        if (row + i * kRows < end) f.work((row + i * kRows) * width + column, in[i], sum);
      }
    }
  }
  if constexpr (F::kSums) {
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || !inside) return;
#pragma unroll
    for (int row = 1; row < kRows; ++row) {
#pragma unroll
      for (int c = 0; c < V; ++c) sum.element[c] += sums[row][threadIdx.x].element[c];
    }
    store_floats<V>(partial + part * width + column, sum);
  }
}

// f_of(a T, V): the functor. `sums`: [groups, width], or null.
template <typename FOf>
void walk(DType dtype, bool wide, int64_t rows, int64_t width, int64_t groups, float* sums, const Launch& on,
          const char* name, const FOf& f_of) {
  if (groups * width == 0) return;
  wide = wide && width % (16 / size_of(dtype)) == 0;
  for_elements(dtype, wide, [&](auto element, auto vector) {
    constexpr int V = vector();
    const int64_t blocks = (width / V + kLanes - 1) / kLanes;
    using F = decltype(f_of(element, vector));
    const RowParts parts(rows, groups, on.sm_count * kBlocksPerSm / blocks, kRows * F::kAhead);
    const bool direct = parts.parts == 1;
    float* const partial = sums == nullptr || direct ? sums : on.scratch_of<float>(parts.count() * width);
    const F f = f_of(element, vector);
    if (parts.count() > 0) {
      columns_kernel<V><<<blocks_of(parts.count() * blocks, 1), dim3(kLanes, kRows), 0, on.stream()>>>(f, parts, width,
                                                                                                       blocks, partial);
      check_launch(name);
    }
    if (sums != nullptr && !direct) launch_group_sums(partial, parts, width, sums, on);
  });
}

}  // namespace

void launch(const ColumnSum& p, const Launch& on) {
  const bool wide = aligned_to_16({p.x, p.output});
  walk(p.dtype, wide, p.rows, p.columns, 1, p.output, on, "column_sum", [&](auto element, auto vector) {
    using T = decltype(element);
    return SumRows<T, vector()>{static_cast<const T*>(p.x)};
  });
}

void launch(const GatedResidualForward& p, const Launch& on) {
  const bool wide = aligned_to_16({p.x, p.branch, p.gate, p.output});
  walk(p.dtype, wide, p.rows, p.width, p.groups, nullptr, on, "gated_residual_forward", [&](auto element, auto vector) {
    using T = decltype(element);
    return GateForward<T, vector()>{
        static_cast<const T*>(p.x), static_cast<const T*>(p.branch), p.gate, static_cast<T*>(p.output), {}};
  });
}

void launch(const GatedResidualBackward& p, const Launch& on) {
  const bool wide = aligned_to_16({p.branch, p.gate, p.doutput, p.dbranch, p.dgate});
  walk(p.dtype, wide, p.rows, p.width, p.groups, p.dgate, on, "gated_residual_backward",
       [&](auto element, auto vector) {
         using T = decltype(element);
         return GateBackward<T, vector()>{
             static_cast<const T*>(p.branch), static_cast<const T*>(p.doutput), p.gate, static_cast<T*>(p.dbranch), {}};
       });
}

}  // namespace vsa::cuda
