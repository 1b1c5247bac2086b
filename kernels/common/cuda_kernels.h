// The table of the GPU's kernels. ll-trainer links no CUDA: libll_cuda.so brings the table when it
// is opened, and the thin torch files look an operation up here when its tensors lie on a GPU.
#pragma once

#include <cstdint>

namespace ll {

struct AccumulateParams;
struct AdamWParams;
struct CrossEntropyParams;
struct DropoutParams;
struct EmbeddingBackwardParams;
struct Fp8DequantizeParams;
struct Fp8QuantizeParams;
struct Fp8TransposeParams;
struct MergeAttentionParams;
struct Nf4DequantizeParams;
struct Nf4QuantizeParams;
struct RmsNormBackwardParams;
struct RmsNormForwardParams;
struct RopeParams;
struct SumSquaresParams;
struct SwigluBackwardParams;
struct SwigluForwardParams;

// Each kernel enqueues `items` of its operation on a stream and returns a cudaError_t
// (LL_CUDA_KERNEL in common/dispatch.h).
struct CudaKernels {
  int (*accumulate)(const AccumulateParams&, int64_t items, void* stream);
  int (*adamw)(const AdamWParams&, int64_t items, void* stream);
  int (*cross_entropy)(const CrossEntropyParams&, int64_t items, void* stream);
  int (*dropout)(const DropoutParams&, int64_t items, void* stream);
  int (*embedding_backward)(const EmbeddingBackwardParams&, int64_t items, void* stream);
  int (*fp8_dequantize)(const Fp8DequantizeParams&, int64_t items, void* stream);
  int (*fp8_quantize)(const Fp8QuantizeParams&, int64_t items, void* stream);
  int (*fp8_transpose)(const Fp8TransposeParams&, int64_t items, void* stream);
  int (*merge_attention)(const MergeAttentionParams&, int64_t items, void* stream);
  int (*nf4_dequantize)(const Nf4DequantizeParams&, int64_t items, void* stream);
  int (*nf4_quantize)(const Nf4QuantizeParams&, int64_t items, void* stream);
  int (*rms_norm_backward)(const RmsNormBackwardParams&, int64_t items, void* stream);
  int (*rms_norm_forward)(const RmsNormForwardParams&, int64_t items, void* stream);
  int (*rope)(const RopeParams&, int64_t items, void* stream);
  int (*sum_squares)(const SumSquaresParams&, int64_t items, void* stream);
  int (*swiglu_backward)(const SwigluBackwardParams&, int64_t items, void* stream);
  int (*swiglu_forward)(const SwigluForwardParams&, int64_t items, void* stream);

  void* (*current_stream)();                  // a cudaStream_t: torch's, of the current device
  const char* (*error_text)(int cuda_error);  // static storage
  // Whether the current device multiplies e4m3 (compute capability 8.9 and later).
  bool (*multiplies_fp8)();
  // The kernels run on host memory: the emulation, which tests put in the GPU's place
  // (kernels/emulate/).
  bool on_host;
};

// A table without what asks the device, of what `<op>_cuda.cu` define.
CudaKernels MakeCudaKernels();

// null until UseCudaKernels. The table must outlive its use. Not thread-safe: call it before
// threads use kernels.
const CudaKernels* CudaKernelsInUse();
void UseCudaKernels(const CudaKernels* kernels);

}  // namespace ll
