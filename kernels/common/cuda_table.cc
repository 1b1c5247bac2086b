// Compiled twice: into libll_cuda.so beside the kernels of nvcc, and into the tests beside the
// emulated ones.
#include "kernels/accumulate/accumulate.h"
#include "kernels/adamw/adamw.h"
#include "kernels/common/cuda_kernels.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/dropout/dropout.h"
#include "kernels/embedding/embedding.h"
#include "kernels/fp8/fp8.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/merge_attention/merge_attention.h"
#include "kernels/nf4/nf4.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rope/rope.h"
#include "kernels/swiglu/swiglu.h"

namespace ll {

CudaKernels MakeCudaKernels() {
  CudaKernels kernels{};
  kernels.accumulate = AccumulateCuda;
  kernels.adamw = AdamWCuda;
  kernels.cross_entropy = CrossEntropyCuda;
  kernels.dropout = DropoutCuda;
  kernels.embedding_backward = EmbeddingBackwardCuda;
  kernels.fp8_dequantize = Fp8DequantizeCuda;
  kernels.fp8_quantize = Fp8QuantizeCuda;
  kernels.fp8_transpose = Fp8TransposeCuda;
  kernels.merge_attention = MergeAttentionCuda;
  kernels.nf4_dequantize = Nf4DequantizeCuda;
  kernels.nf4_quantize = Nf4QuantizeCuda;
  kernels.rms_norm_backward = RmsNormBackwardCuda;
  kernels.rms_norm_forward = RmsNormForwardCuda;
  kernels.rope = RopeCuda;
  kernels.sum_squares = SumSquaresCuda;
  kernels.swiglu_backward = SwigluBackwardCuda;
  kernels.swiglu_forward = SwigluForwardCuda;
  return kernels;
}

}  // namespace ll
