#include "kernels/common/cuda_library.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace ll {
namespace {

absl::StatusOr<void*> Find(void* library, const char* name) {
  void* symbol = dlsym(library, name);
  if (symbol == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("libll_cuda.so does not match this program: ", dlerror()));
  }
  return symbol;
}

}  // namespace

absl::StatusOr<void*> OpenCudaLibrary() {
  static void* opened = nullptr;
  if (opened != nullptr) return opened;
  // Found through the program's own run path.
  void* library = dlopen("libll_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("this release is not the CUDA variant (", dlerror(), ")"));
  }
  LL_ASSIGN_OR_RETURN(void* symbol, Find(library, kCudaKernelsSymbol));
  UseCudaKernels(reinterpret_cast<const CudaKernels* (*)()>(symbol)());
  opened = library;
  return opened;
}

absl::StatusOr<void*> CudaSymbol(const char* name) {
  LL_ASSIGN_OR_RETURN(void* library, OpenCudaLibrary());
  return Find(library, name);
}

}  // namespace ll
