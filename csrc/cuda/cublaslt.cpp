#include "cuda/cublaslt.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "core/error.h"

namespace vsa::cuda::cublaslt {
namespace {

// Where the library may be: what VSA_CUBLASLT names and nothing else, or the newest that the loader or CUDA's usual
// folders have.
std::vector<std::string> places() {
  if (const char* path = std::getenv("VSA_CUBLASLT"); path != nullptr && *path != '\0') return {path};
  std::vector<std::string> folders = {""};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* root = std::getenv(variable); root != nullptr && *root != '\0') {
      folders.push_back(std::string(root) + "/lib64/");
    }
  }
  folders.push_back("/usr/local/cuda/lib64/");
  std::vector<std::string> found;
  for (const std::string& folder : folders) {
    for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) found.push_back(folder + name);
  }
  return found;
}

template <typename Function>
void find(void* handle, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(handle, name));
  if (function == nullptr) {
    throw Error("ERR_BACKEND",
                std::string("matrixProduct: got a cuBLASLt without ") + name + ", wanted that of CUDA 12 or 13");
  }
}

Library open(void* handle) {
  Library library{};
  void* const version = dlsym(handle, "cublasLtGetVersion");
  Dl_info info{};
  if (version != nullptr && dladdr(version, &info) != 0 && info.dli_fname != nullptr) library.path = info.dli_fname;
  find(handle, "cublasLtCreate", library.Create);
  find(handle, "cublasLtMatmulDescCreate", library.MatmulDescCreate);
  find(handle, "cublasLtMatmulDescDestroy", library.MatmulDescDestroy);
  find(handle, "cublasLtMatmulDescSetAttribute", library.MatmulDescSetAttribute);
  find(handle, "cublasLtMatrixLayoutCreate", library.MatrixLayoutCreate);
  find(handle, "cublasLtMatrixLayoutDestroy", library.MatrixLayoutDestroy);
  find(handle, "cublasLtMatmulPreferenceCreate", library.MatmulPreferenceCreate);
  find(handle, "cublasLtMatmulPreferenceDestroy", library.MatmulPreferenceDestroy);
  find(handle, "cublasLtMatmulPreferenceSetAttribute", library.MatmulPreferenceSetAttribute);
  find(handle, "cublasLtMatmulAlgoGetHeuristic", library.MatmulAlgoGetHeuristic);
  find(handle, "cublasLtMatmul", library.Matmul);
  find(handle, "cublasLtGetStatusName", library.GetStatusName);
  return library;
}

Library load() {
  std::string tried;
  for (const std::string& place : places()) {
    if (void* const handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) return open(handle);
    const char* const why = dlerror();
    tried += (tried.empty() ? "" : "; ") + std::string(why != nullptr ? why : place);
  }
  throw Error("ERR_BACKEND",
              "matrixProduct: got no cuBLASLt (" + tried +
                  "), wanted libcublasLt.so.13 or .12 of a CUDA toolkit: install it (Debian and Ubuntu, from NVIDIA's "
                  "repository: apt install libcublas-13-0), or set VSA_CUBLASLT to the path of one that is there");
}

}  // namespace

const Library& library() {
  static const Library& loaded = *new Library(load());  // outlives every thread
  return loaded;
}

void check(Status status, const char* call) {
  if (status == 0) return;
  cudaGetLastError();  // must not become the next caller's error
  throw Error("ERR_BACKEND", std::string("matrixProduct: ") + call + " of " + library().path + " failed with " +
                                 library().GetStatusName(status));
}

}  // namespace vsa::cuda::cublaslt
