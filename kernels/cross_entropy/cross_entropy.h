// Softmax cross-entropy of a chunk of rows, and its gradient written over the logits.
//
//   nll = log(sum_j exp(z_j)) - z_label,   dz_j = grad_scale * (softmax(z)_j - [j == label])
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// logits [rows, vocab]; labels [rows], -100 = no target: its nll and gradient are 0. nll [rows]
// fp32 is written. With write_grad the logits are overwritten with dz, otherwise they stay. Labels
// must be -100 or in [0, vocab).
struct CrossEntropyParams {
  void* logits;
  const int64_t* labels;
  float* nll;
  int64_t vocab;
  float grad_scale;
  bool write_grad;
  DType dtype;
};
LL_SIMD_KERNEL(CrossEntropy, CrossEntropyParams)
LL_CUDA_KERNEL(CrossEntropy, CrossEntropyParams)

}  // namespace ll
