// Attention calls on a GPU, through LibTorch's entry points: what attention_calls.cc runs there.
// Enqueued on torch's current stream; what LibTorch refuses is thrown as c10::Error.
#pragma once

#include <optional>
#include <string>

#include <ATen/ATen.h>

#include "kernels/flash_attention/flash_attention_torch.h"
#include "model/attention_choice.h"

namespace ll {

// Scaled by 1/sqrt(D); tensors as flash_attention_torch.h has them, on one GPU. Causal is aligned
// at the bottom right. window > 0: a query sees the last `window` keys up to its own alone (bf16
// and causal only). Which kernel computes it: UseAttentionTable. Going back, the heads of a call
// are computed some at a time where that keeps the kernel's scratch small
// (model/plan/gpu_attention.h).
void CudaAttentionForward(const FlashAttentionForwardCall& call, bool causal, int64_t window = 0);
void CudaAttentionBackward(const FlashAttentionBackwardCall& call, bool causal, int64_t window = 0);

// Sequences that lie one behind the other in one row, causal each: `starts` int32 [sequences + 1]
// on the call's device, from 0 to the row's length; `longest` of them, in tokens. B is 1; bf16
// alone.
struct PackedSequences {
  at::Tensor starts;
  int64_t longest = 0;
};
void CudaPackedForward(const FlashAttentionForwardCall& call, const PackedSequences& sequences,
                       int64_t window = 0);
void CudaPackedBackward(const FlashAttentionBackwardCall& call, const PackedSequences& sequences,
                        int64_t window = 0);

// By what the calls above choose from here on: the table, where there is one of this GPU, and the
// first number of its compute capability. Returns a sentence for the log: what bf16 calls of plain
// S²-Attn will go through, and why. Not thread-safe; call it before anything attends.
std::string UseAttentionTable(std::optional<AttentionTable> table, int major);

// LibTorch's entry points, as functions, so that tests can put others in their place where there is
// no GPU. Arguments and results are laid out as LibTorch has them:
// flash [B, N, H, D], or packed [N, H, D] where starts are given, lse [B, H, N] or [H, N]; cudnn
// and efficient [B, H, N, D], lse [B, H, N], of efficient padded to a multiple of 32.
struct GpuAttention {
  struct Inputs {
    at::Tensor q, k, v;
    const PackedSequences* packed = nullptr;  // flash alone
    bool causal = true;
    int64_t window = 0;  // flash alone; 0 = none
  };
  struct Result {
    at::Tensor out, lse;
  };
  struct Gradients {
    at::Tensor dq, dk, dv;
  };
  using Forward = Result (*)(const Inputs& in);
  using Backward = Gradients (*)(const Inputs& in, const Result& result, const at::Tensor& dout);
  struct Kernel {
    Forward forward;
    Backward backward;
  };
  Kernel flash, cudnn, efficient;
};
// From here on for tensors on any device; null: LibTorch's, for a GPU's. Not thread-safe.
void UseGpuAttention(const GpuAttention* attention);
// Whether attention there is this file's: it is a GPU, or a test has put its own functions in
// place.
bool AttendsOnGpu(at::Device device);

}  // namespace ll
