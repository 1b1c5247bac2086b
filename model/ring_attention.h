// Full attention of a row whose tokens are divided between ranks: keys and values go round in a
// ring, partial results are merged by their log-sum-exps.
//
// The row is cut into 2n chunks and rank r holds chunks r and 2n - 1 - r (zig-zag), so that all
// ranks have the same work under the causal mask. In each of n - 1 turns a rank passes the block it
// holds to the next rank while it attends to it. Merging, as Ring Attention (Liu et al., 2023,
// arXiv:2310.01889) has it with FlashAttention's log-sum-exps, is in fp32, and so, on CPUs, are the
// partial results, which are rounded to the compute type once, when all are merged. Bytes a rank
// sends forward, a layer: 4 (n - 1) / n S H_kv d_h in bf16. Backward the blocks go round again with
// their gradients, which are fp32.
#pragma once

#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/row_peers.h"
#include "model/shifted_attention.h"

namespace ll {

struct RingPlan {
  // A rectangle of the mask: all of these keys are visible to all of these queries. Both count from
  // the first token of the rank that holds them.
  struct Block {
    Segment queries, keys;
  };
  std::vector<Segment> chunks;             // this rank's, in tokens of the row
  AttentionPlan local;                     // each document inside a chunk, in tokens of this rank
  std::vector<int64_t> holds;              // tokens of each rank
  std::vector<std::vector<Block>> blocks;  // of each rank's keys, for this rank's queries
};

// Rank `rank` of `ranks`; tokens >= 2 * ranks. Errors: InvalidArgument for documents that do not
// cover the row and for one longer than the model's sliding window.
absl::StatusOr<RingPlan> MakeRingPlan(const LlamaConfig& config, int64_t tokens,
                                      const std::vector<std::pair<int64_t, int64_t>>& documents,
                                      int ranks, int rank);

// As AttentionForward and AttentionBackward on this rank's tokens, its chunks one behind the other.
// Collective over `peers`.
absl::Status RingAttentionForward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                  at::Tensor& out, at::Tensor& lse);
absl::Status RingAttentionBackward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   const at::Tensor& out, const at::Tensor& lse,
                                   const at::Tensor& dout, at::Tensor& dqkv);

}  // namespace ll
