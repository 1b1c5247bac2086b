// What the thin torch files share: dtype mapping, checks, and a division of work that is the same
// for every number of threads where the result depends on it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "base/check.h"
#include "kernels/common/cuda_kernels.h"
#include "kernels/common/dtype.h"
#include "kernels/common/torch_op_trace.h"

namespace ll {

inline DType DTypeOf(const at::Tensor& t) {
  LL_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
  return t.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
}

inline void CheckOperand(const at::Tensor& t) { LL_CHECK(t.is_contiguous()); }

// The kernels of the device that `t` lies on; null: the CPU's.
inline const CudaKernels* CudaKernelsFor(const at::Tensor& t) {
  const CudaKernels* kernels = CudaKernelsInUse();
  if (kernels != nullptr && kernels->on_host) return kernels;
  LL_CHECK_MSG(t.is_cpu() || (t.is_cuda() && kernels != nullptr),
               "tensors lie on the CPU, or on a GPU whose kernels are in use");
  return t.is_cuda() ? kernels : nullptr;
}

// Runs `items` of a kernel where `t` lies: on ATen's threads, or enqueued on the device's current
// stream. Throws c10::Error where the device refuses.
template <typename Params>
void RunKernel(const at::Tensor& t, const Params& p, int64_t items, int64_t grain,
               void (*cpu)(const Params&, int64_t, int64_t),
               int (*CudaKernels::*cuda)(const Params&, int64_t, void*)) {
  if (const CudaKernels* kernels = CudaKernelsFor(t)) {
    const int error = (kernels->*cuda)(p, items, kernels->current_stream());
    TORCH_CHECK(error == 0, "CUDA: ", kernels->error_text(error));
    return;
  }
  at::parallel_for(0, items, grain, [&](int64_t b, int64_t e) { cpu(p, b, e); });
}

// Items a thread takes at least, so that starting a thread costs little beside its work.
inline int64_t Grain(int64_t item_elements) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, item_elements));
}

}  // namespace ll
