// Full attention of a row whose tokens are divided between ranks: keys and values go round in a
// ring, partial results are merged by their log-sum-exps.
//
// The row is cut into 2n chunks and rank r holds chunks r and 2n - 1 - r (zig-zag), so that all
// ranks have the same work under the causal mask. In each of n - 1 turns a rank passes the block it
// holds to the next rank while it attends to it. Merging, as Ring Attention (Liu et al., 2023,
// arXiv:2310.01889) has it with FlashAttention's log-sum-exps, is in fp32, and so, on CPUs, are the
// partial results, which are rounded to the compute type once, when all are merged; a GPU's kernels
// return them in bf16 (docs/scaling.md says what that costs). Bytes a rank
// sends forward, a layer: 4 (n - 1) / n S H_kv d_h in bf16. Backward the blocks go round again with
// their gradients, which are fp32.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/row_peers.h"
#include "model/shifted_attention.h"

namespace ll {

struct RingPlan {
  // Queries and keys, each counted from the first token of the rank that holds them.
  struct Block {
    Segment queries, keys;
  };
  std::vector<Segment> chunks;  // this rank's, in tokens of the row
  // Each document inside a chunk, in tokens of this rank, but for the queries of `spanning`.
  AttentionPlan local;
  // The document in which the second chunk begins, if it was there in the first one already. Keys
  // end with the queries: causal.
  std::optional<Block> spanning;
  std::vector<int64_t> holds;  // tokens of each rank
  // Of each rank's keys what queries of this one see: all of these keys, all of these queries. Its
  // own keys: nothing.
  std::vector<std::optional<Block>> blocks;
};

// Scratch that every layer uses in turn. The buffers grow to the longest row seen and are then
// reused, so that a step touches no fresh pages.
struct RingBuffers {
  at::Tensor kv[2];     // [tokens, 2K*D] keys and values at hand and on their way
  at::Tensor dkv[2];    // fp32, their gradients
  at::Tensor sum;       // fp32 [N, H, D] merged results; backward the queries' gradient
  at::Tensor part;      // fp32 [N, H, D] one block's part of it
  at::Tensor part_lse;  // fp32 [H, N]
};

// Rank `rank` of `ranks`; tokens >= 2 * ranks. Errors: InvalidArgument for documents that do not
// cover the row and for one longer than the model's sliding window.
absl::StatusOr<RingPlan> MakeRingPlan(const LlamaConfig& config, int64_t tokens,
                                      const std::vector<std::pair<int64_t, int64_t>>& documents,
                                      int ranks, int rank);

// As AttentionForward and AttentionBackward on this rank's tokens, its chunks one behind the other.
// Collective over `peers`.
absl::Status RingAttentionForward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                  RingBuffers& scratch, at::Tensor& out, at::Tensor& lse);
absl::Status RingAttentionBackward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   const at::Tensor& out, const at::Tensor& lse,
                                   const at::Tensor& dout, RingBuffers& scratch, at::Tensor& dqkv);

}  // namespace ll
