// The flash attention kernels on tensors. Several independent calls (the parts of S²-Attn) go in
// one list, so that all their tasks share the threads.
#pragma once

#include <ATen/ATen.h>

namespace ll {

// True if the kernels can take this dtype, device and head dim on this machine; else use torch's.
// Either forward's out and lse suit either backward.
bool FlashAttentionUsable(const at::Tensor& q);

// Views of any strides with a contiguous last dimension. q, out [B, H, Nq, D]; k, v [B, K, Nk, D]
// with H % K == 0, all bf16 or, in every call of a list, all fp32; out may be fp32 where they are
// bf16: the result before it is rounded, for who merges it with others. lse fp32 [B, H, Nq] of any
// strides. out and lse are written.
struct FlashAttentionForwardCall {
  at::Tensor q, k, v, out, lse;
};

// As above; dq, dk, dv as q, k, v; where those are bf16, dk and dv, or all three, may be fp32. They
// are overwritten, but accumulate_dkv adds to dk and dv. Calls of one list must not write the same
// dk or dv elements: pass the one that accumulates in a later list.
struct FlashAttentionBackwardCall {
  at::Tensor q, k, v, out, lse, dout, dq, dk, dv;
  bool accumulate_dkv = false;
};

// scale > 0, usually 1 / sqrt(D). Causal is aligned to the bottom right (flash_attention.h).
// Results do not depend on the number of threads. A broken rule is a programming error and aborts.
void FlashAttentionForward(at::ArrayRef<FlashAttentionForwardCall> calls, double scale,
                           bool causal);
void FlashAttentionBackward(at::ArrayRef<FlashAttentionBackwardCall> calls, double scale,
                            bool causal);

}  // namespace ll
