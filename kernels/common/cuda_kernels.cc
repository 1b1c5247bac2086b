#include "kernels/common/cuda_kernels.h"

namespace ll {
namespace {

const CudaKernels* in_use = nullptr;

}  // namespace

const CudaKernels* CudaKernelsInUse() { return in_use; }
void UseCudaKernels(const CudaKernels* kernels) { in_use = kernels; }

}  // namespace ll
