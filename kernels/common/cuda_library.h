// libll_cuda.so: everything that links CUDA, beside the program and opened when it is given a GPU,
// so that a host without CUDA never looks for its libraries.
#pragma once

#include "absl/status/statusor.h"
#include "kernels/common/cuda_kernels.h"

namespace ll {

// Exported by libll_cuda.so: `const CudaKernels* ll_cuda_kernels()`.
inline constexpr char kCudaKernelsSymbol[] = "ll_cuda_kernels";

// Opens the library, the first time, and puts its kernels in use; it stays open until the process
// ends, as CUDA wants. Returns dlopen's handle. Not thread-safe. FailedPrecondition with the reason
// where this build has no such library, where it belongs to another build, or where its own
// libraries are missing.
absl::StatusOr<void*> OpenCudaLibrary();

// A symbol of it; FailedPrecondition where it has none.
absl::StatusOr<void*> CudaSymbol(const char* name);

}  // namespace ll
