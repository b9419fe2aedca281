#pragma once

#include <cuda_runtime_api.h>
#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <string>

// What this package uses of cuBLASLt's C interface, declared here: the library is the user's, found when the first
// matrix product on a GPU is asked for, and building needs no header of it. Numbers are those of <cublasLt.h>, the same
// in CUDA 12 and 13.
namespace vsa::cuda::cublaslt {

using Status = int;  // 0: success
using Handle = struct HandleOpaque*;
using Description = struct DescriptionOpaque*;
using Layout = struct LayoutOpaque*;
using Preference = struct PreferenceOpaque*;

enum ComputeType : int { kComputeFloat32 = 68 };  // fp32 sums; of fp32 inputs no TF32
enum Operation : int32_t { kAsItIs = 0, kTransposed = 1 };
enum Epilogue : int32_t { kNoEpilogue = 1, kBias = 4 };
enum DescriptionAttribute : int {
  kOperationA = 3,
  kOperationB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
};
enum PreferenceAttribute : int {
  kMostWorkspace = 1,
  kReductionSchemes = 3,
  kAlignmentA = 5,
  kAlignmentB = 6,
  kAlignmentC = 7,
  kAlignmentD = 8,
};
// Of a product that is split along K: no bit, unsplit ones only; this one, parts added up in fp32 by a second kernel.
enum ReductionScheme : uint32_t { kComputeTypeReduction = 2 };

struct Algorithm {
  uint64_t data[8];
};

struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  Status status;
  float waves;
  int reserved[4];
};

// The functions, by their names without the prefix cublasLt.
struct Library {
  std::string path;
  Status (*Create)(Handle*);
  Status (*MatmulDescCreate)(Description*, ComputeType, cudaDataType);
  Status (*MatmulDescDestroy)(Description);
  Status (*MatmulDescSetAttribute)(Description, DescriptionAttribute, const void*, size_t);
  Status (*MatrixLayoutCreate)(Layout*, cudaDataType, uint64_t rows, uint64_t columns, int64_t leading);
  Status (*MatrixLayoutDestroy)(Layout);
  Status (*MatmulPreferenceCreate)(Preference*);
  Status (*MatmulPreferenceDestroy)(Preference);
  Status (*MatmulPreferenceSetAttribute)(Preference, PreferenceAttribute, const void*, size_t);
  Status (*MatmulAlgoGetHeuristic)(Handle, Description, Layout a, Layout b, Layout c, Layout d, Preference, int wanted,
                                   Heuristic*, int* found);
  Status (*Matmul)(Handle, Description, const void* alpha, const void* a, Layout, const void* b, Layout,
                   const void* beta, const void* c, Layout, void* d, Layout, const Algorithm*, void* workspace,
                   size_t workspace_bytes, cudaStream_t);
  const char* (*GetStatusName)(Status);
};

// The library, loaded once. Throws ERR_BACKEND, with the places that were tried and what to install, where there is
// none; asks again the next time.
const Library& library();

// Throws where a call failed; `call` is its name.
void check(Status status, const char* call);

}  // namespace vsa::cuda::cublaslt
