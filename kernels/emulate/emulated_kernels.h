// The table of emulated kernels, which tests put in the GPU's place (UseCudaKernels).
#pragma once

#include "kernels/common/cuda_kernels.h"

namespace ll {

inline const CudaKernels& EmulatedKernels() {
  static const CudaKernels kernels = [] {
    CudaKernels made = MakeCudaKernels();
    made.current_stream = []() -> void* { return nullptr; };
    made.error_text = [](int) { return "emulated"; };
    made.multiplies_fp8 = [] { return false; };
    made.on_host = true;
    return made;
  }();
  return kernels;
}

}  // namespace ll
