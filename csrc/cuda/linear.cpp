// Matrix products by cuBLASLt. Which of its algorithms runs is a function of the problem alone: the heuristic's first
// choice, asked for once and kept. Only algorithms without atomics are asked for, so the bits are the same every time:
// those that do not split K, or add the parts up in fp32 in a kernel of their own.
#include <map>
#include <memory>
#include <mutex>
#include <tuple>

#include "cuda/check.h"
#include "cuda/cublaslt.h"
#include "cuda/launch.h"

namespace vsa::cuda {
namespace {

constexpr uint64_t kMostWorkspace = uint64_t{32} << 20;
constexpr size_t kMostPlans = 4096;

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return CUDA_R_32F;
    case DType::bfloat16:
      return CUDA_R_16BF;
    case DType::float16:
      return CUDA_R_16F;
    default:
      VSA_CHECK(false, "matrices must be float32, bfloat16 or float16");
  }
}

// Of a block that cuBLASLt may assume of an address: a power of 2, at most 256.
uint32_t alignment_of(const void* address) {
  const auto bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

template <typename T, cublaslt::Status (*cublaslt::Library::*destroy)(T)>
struct Destroy {
  void operator()(T one) const { (cublaslt::library().*destroy)(one); }
};
template <typename T, cublaslt::Status (*cublaslt::Library::*destroy)(T)>
using Owned = std::unique_ptr<std::remove_pointer_t<T>, Destroy<T, destroy>>;
using Description = Owned<cublaslt::Description, &cublaslt::Library::MatmulDescDestroy>;
using Layout = Owned<cublaslt::Layout, &cublaslt::Library::MatrixLayoutDestroy>;
using Preference = Owned<cublaslt::Preference, &cublaslt::Library::MatmulPreferenceDestroy>;

// How a problem is solved. cuBLASLt's matrices are column-major, in which a row-major matrix is its transpose: what is
// computed is output^T = op(b)^T op(a)^T, so its left matrix is b and its right one a.
struct Plan {
  Description description;
  Layout left, right, output;
  cublaslt::Heuristic heuristic;
};

// All that the choice depends on.
using Problem = std::tuple<DType, DType, bool, bool, bool, int64_t, int64_t, int64_t, uint32_t, uint32_t, uint32_t>;

Problem problem_of(const MatrixProduct& p) {
  return {p.dtype, p.output_dtype,    p.transpose_a,     p.transpose_b,         p.bias != nullptr, p.M, p.N,
          p.K,     alignment_of(p.a), alignment_of(p.b), alignment_of(p.output)};
}

Layout layout_of(DType dtype, int64_t rows, int64_t columns) {
  cublaslt::Layout layout = nullptr;  // rows of ours are its columns
  cublaslt::check(cublaslt::library().MatrixLayoutCreate(&layout, type_of(dtype), static_cast<uint64_t>(columns),
                                                         static_cast<uint64_t>(rows), columns),
                  "cublasLtMatrixLayoutCreate");
  return Layout(layout);
}

template <typename T>
void set(const Description& description, cublaslt::DescriptionAttribute attribute, const T& value) {
  cublaslt::check(cublaslt::library().MatmulDescSetAttribute(description.get(), attribute, &value, sizeof(value)),
                  "cublasLtMatmulDescSetAttribute");
}

template <typename T>
void set(const Preference& preference, cublaslt::PreferenceAttribute attribute, const T& value) {
  cublaslt::check(cublaslt::library().MatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof(value)),
                  "cublasLtMatmulPreferenceSetAttribute");
}

Plan make_plan(const MatrixProduct& p, const void* bias, cublaslt::Handle handle) {
  const cublaslt::Library& library = cublaslt::library();
  cublaslt::Description description = nullptr;
  cublaslt::check(library.MatmulDescCreate(&description, cublaslt::kComputeFloat32, CUDA_R_32F),
                  "cublasLtMatmulDescCreate");
  Plan plan{Description(description), p.transpose_b ? layout_of(p.dtype, p.N, p.K) : layout_of(p.dtype, p.K, p.N),
            p.transpose_a ? layout_of(p.dtype, p.K, p.M) : layout_of(p.dtype, p.M, p.K),
            layout_of(p.output_dtype, p.M, p.N), cublaslt::Heuristic{}};
  set(plan.description, cublaslt::kOperationA, p.transpose_b ? cublaslt::kTransposed : cublaslt::kAsItIs);
  set(plan.description, cublaslt::kOperationB, p.transpose_a ? cublaslt::kTransposed : cublaslt::kAsItIs);
  set(plan.description, cublaslt::kEpilogue, bias != nullptr ? cublaslt::kBias : cublaslt::kNoEpilogue);
  if (bias != nullptr) set(plan.description, cublaslt::kBiasPointer, bias);

  cublaslt::Preference made = nullptr;
  cublaslt::check(library.MatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
  const Preference preference(made);
  set(preference, cublaslt::kMostWorkspace, kMostWorkspace);
  set(preference, cublaslt::kReductionSchemes, cublaslt::kComputeTypeReduction);
  set(preference, cublaslt::kAlignmentA, alignment_of(p.b));
  set(preference, cublaslt::kAlignmentB, alignment_of(p.a));
  set(preference, cublaslt::kAlignmentC, alignment_of(p.output));
  set(preference, cublaslt::kAlignmentD, alignment_of(p.output));
  int found = 0;
  cublaslt::check(
      library.MatmulAlgoGetHeuristic(handle, plan.description.get(), plan.left.get(), plan.right.get(),
                                     plan.output.get(), plan.output.get(), made, 1, &plan.heuristic, &found),
      "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0) {
    throw Error("ERR_BACKEND", "matrixProduct: got no algorithm of " + library.path + " for M " + std::to_string(p.M) +
                                   ", N " + std::to_string(p.N) + ", K " + std::to_string(p.K) + ", wanted one");
  }
  return plan;
}

// Of one device: cuBLASLt's handle, and the plans that were made with it. Used under the device's lock.
class Products {
public:
  Products() { cublaslt::check(cublaslt::library().Create(&handle_), "cublasLtCreate"); }

  void run(const MatrixProduct& p, const void* bias, const Launch& on) {
    const Problem problem = problem_of(p);
    auto at = plans_.find(problem);
    if (at == plans_.end()) {
      if (plans_.size() == kMostPlans) plans_.clear();
      at = plans_.emplace(problem, make_plan(p, bias, handle_)).first;
    }
    const Plan& plan = at->second;
    if (bias != nullptr) set(plan.description, cublaslt::kBiasPointer, bias);
    const size_t bytes = plan.heuristic.workspace;
    void* const workspace = bytes > 0 ? on.scratch(static_cast<int64_t>(bytes)) : nullptr;
    const float one = 1, zero = 0;
    cublaslt::check(
        cublaslt::library().Matmul(handle_, plan.description.get(), &one, p.b, plan.left.get(), p.a, plan.right.get(),
                                   &zero, p.output, plan.output.get(), p.output, plan.output.get(),
                                   &plan.heuristic.algorithm, workspace, bytes, on.stream()),
        "cublasLtMatmul");
  }

private:
  cublaslt::Handle handle_ = nullptr;
  std::map<Problem, Plan> plans_;
};

Products& products() {
  static std::mutex mutex;
  static auto& devices = *new std::map<int, std::unique_ptr<Products>>;  // outlives every thread
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  auto& known = devices[device];
  if (known == nullptr) known = std::make_unique<Products>();
  return *known;
}

// A sum of no products.
void launch_empty(const MatrixProduct& p, const void* bias, const Launch& on) {
  launch(Fill{.dtype = p.output_dtype, .count = p.M * p.N, .value = 0, .output = p.output}, on);
  if (bias == nullptr) return;
  launch(Add{.dtype = p.output_dtype,
             .count = p.M * p.N,
             .b_count = p.N,
             .alpha = 1,
             .beta = 1,
             .a = p.output,
             .b = bias,
             .output = p.output},
         on);
}

}  // namespace

void launch(const MatrixProduct& p, const Launch& on) {
  if (p.M == 0 || p.N == 0) return;
  const auto cast = [&](DType from, DType to, int64_t count, const void* x, void* output) {
    launch(Cast{.from = from, .to = to, .count = count, .x = x, .output = output}, on);
  };
  // cuBLASLt adds a bias of the output's dtype.
  const DType dtype = p.output_dtype;
  const void* bias = p.bias;
  if (bias != nullptr && dtype != DType::float32) {
    void* const rounded = on.scratch(p.N * size_of(dtype));
    cast(DType::float32, dtype, p.N, p.bias, rounded);
    bias = rounded;
  }
  if (p.K == 0) return launch_empty(p, bias, on);
  // Where rows do not begin at 16 bytes, its algorithms may round the product before they add the bias (seen with odd
  // N). There the sum is made in fp32.
  if (bias == nullptr || dtype == DType::float32 || (p.N * size_of(dtype)) % 16 + (p.K * size_of(p.dtype)) % 16 == 0) {
    return products().run(p, bias, on);
  }
  float* const wide_bias = on.scratch_of<float>(p.N);
  cast(dtype, DType::float32, p.N, bias, wide_bias);
  MatrixProduct wide = p;
  wide.output_dtype = DType::float32;
  wide.output = on.scratch(p.M * p.N * size_of(DType::float32));
  products().run(wide, wide_bias, on);
  cast(DType::float32, dtype, p.M * p.N, wide.output, p.output);
}

}  // namespace vsa::cuda
