// NF4 on the GPU: the same parameters, layout and bits as nf4.h, pointers into device memory.
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/nf4/nf4.h"

namespace ll {

// Enqueues the work of `blocks` blocks of 64 elements on `stream`; reads and writes nothing
// afterwards. Returns the launch's error. x, codes and y are aligned to 16 bytes.
cudaError_t Nf4QuantizeCuda(const Nf4QuantizeParams& p, int64_t blocks, cudaStream_t stream);
cudaError_t Nf4DequantizeCuda(const Nf4DequantizeParams& p, int64_t blocks, cudaStream_t stream);

}  // namespace ll
