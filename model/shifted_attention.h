// S²-Attn (LongLoRA's shifted sparse attention), short and full causal attention, forward and
// backward.
//
// The first floor(H/2) query heads attend inside groups of G tokens, the others inside groups
// shifted by half a group. With `split` nothing wraps around: the shifted heads' first and last
// half groups stand alone, so no token sees the future. That needs no shift and no copy of q, k, v:
// a head's groups are segments of the row, and segments of one length at even distances are one
// strided batch (three dense calls for ratio 1/4, see BatchSegments).
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "model/attention_cuda.h"
#include "model/head_runs.h"
#include "model/llama.h"
#include "model/segments.h"

namespace ll {

// What attends to what in one row; made once a row and used by every layer.
struct AttentionPlan {
  int64_t tokens = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::vector<HeadRun> runs;
  std::vector<Segment> segments[2];  // [shifted]
  int64_t roll_tokens =
      0;  // wrap: roll — shifted runs see the row rotated left by this many tokens
  // [shifted]: on a GPU, where so many calls of one length each would be needed that one call of
  // packed sequences is better (PlaceSequences).
  std::optional<PackedSequences> packed[2];
};

// Errors: InvalidArgument for documents that do not cover the row in order, a group below 1 token,
// or `roll` with several documents or with groups longer than the model's sliding window.
absl::StatusOr<AttentionPlan> MakeAttentionPlan(
    const LlamaConfig& config, const AttentionSpec& spec, int64_t tokens,
    const std::vector<std::pair<int64_t, int64_t>>& documents);

// Makes `packed` for tensors on `device`, where segments follow each other without gaps: one small
// copy to it a row.
void PlaceSequences(AttentionPlan& plan, at::Device device);

// out [N, H*D] = attention of qkv [N, (H + 2K)*D] (rows: all query heads, key heads, value heads;
// scaled by 1/sqrt(D)); lse fp32 [H, N] = log-sum-exp of each query's scores, for the backward
// pass. out and lse are written. With `window` > 0 a query sees, of its segment, the `window`
// tokens that end with itself (model/sliding_window.h); segments no longer than that are not
// affected. out is of qkv's type or fp32 (attention_calls.h).
void AttentionForward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                      at::Tensor& out, at::Tensor& lse);

// dqkv [N, (H + 2K)*D] is overwritten with the gradient, given dout [N, H*D] and the forward's out
// and lse.
void AttentionBackward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                       const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dout,
                       at::Tensor& dqkv);
// The same, dq [N, H*D] apart from dkv [N, 2K*D]; dkv, or both, may be fp32 where qkv is bf16:
// parts of a sum that is rounded once.
void AttentionBackward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                       const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dout,
                       at::Tensor dq, at::Tensor dkv);

}  // namespace ll
