// Causal attention where a query sees no more than the `window` tokens that end with itself
// (Mistral's and Qwen's sliding_window), for sequences longer than the window. Shorter ones are
// plain causal attention and do not come here.
#pragma once

#include "kernels/flash_attention/flash_attention_torch.h"

namespace ll {

// Queries go in blocks, each against the keys that any of its queries sees; what lies outside the
// band of the block is masked. Scaled by 1/sqrt(D), as the plain calls are. Time O(N * window),
// memory beside the result O(window). call.q [B, H, N, D] with N > window >= 1.
void SlidingWindowForward(const FlashAttentionForwardCall& call, int64_t window);
// Gradients of keys are summed over blocks in fp32 before they are written, or added to call.dk and
// call.dv with accumulate_dkv.
void SlidingWindowBackward(const FlashAttentionBackwardCall& call, int64_t window);

}  // namespace ll
