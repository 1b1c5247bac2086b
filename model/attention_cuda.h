// Attention calls on a GPU, through LibTorch's entry points: what attention_calls.cc runs there.
#pragma once

#include "kernels/flash_attention/flash_attention_torch.h"

namespace ll {

// Scaled by 1/sqrt(D); tensors as flash_attention_torch.h has them, on one GPU. bf16 goes through
// FlashAttention-2, whose causal mask is aligned at the bottom right and which takes grouped heads
// and any strides; fp32 through the memory-efficient kernel, with repeated keys and, for fewer
// queries than keys, rows of zeros in front. window > 0: a query sees the last `window` keys up to
// its own alone (bf16 and causal only). Enqueued on torch's current stream; what LibTorch
// refuses is thrown as c10::Error.
void CudaAttentionForward(const FlashAttentionForwardCall& call, bool causal, int64_t window = 0);
void CudaAttentionBackward(const FlashAttentionBackwardCall& call, bool causal, int64_t window = 0);

}  // namespace ll
