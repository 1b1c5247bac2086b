// Attention of a row whose tokens are divided between ranks (context parallelism): every rank holds
// its shard's q, k, v, receives the keys and values in front of it that its queries see
// (cp_exchange.h), puts them in front of its own and makes the same causal calls as one rank would.
// No partial results are merged, so nothing is rounded that one rank would not round; where the
// kernel's tiles lie alike the forward pass is equal bit for bit.
//
// The transfer runs beside the attention of the segments that begin in the shard. Backward goes the
// other way round: the reaching segments first, then their dK, dV travel back while the local ones
// are computed.
#pragma once

#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/cp_exchange.h"
#include "model/row_peers.h"
#include "model/shifted_attention.h"

namespace ll {

struct ShardPlan {
  Segment shard;        // this rank's tokens of the row
  AttentionPlan local;  // the segments that begin in it, counted from its first token
  // A run's segment that began before: its keys begin at row token `begin`, its queries are the
  // shard's first `queries` tokens.
  struct Reach {
    HeadRun run;
    int64_t begin = 0;
    int64_t queries = 0;
  };
  std::vector<Reach> reaches;
  std::vector<CpTransfer> sends, receives;  // this rank's
  int64_t ReceivedElements() const;
};

// Rank `rank` of `ranks`. Errors: InvalidArgument for what MakeAttentionPlan refuses, for `roll`,
// whose first tokens see the last ones, and for segments longer than the model's sliding window.
absl::StatusOr<ShardPlan> MakeShardPlan(const LlamaConfig& config, const AttentionSpec& spec,
                                        int64_t tokens,
                                        const std::vector<std::pair<int64_t, int64_t>>& documents,
                                        int ranks, int rank);

// As AttentionForward on the shard's tokens. `received` [>= ReceivedElements()], of qkv's type, is
// overwritten with the keys and values of others, for the backward pass. Collective over `peers`.
absl::Status ShardAttentionForward(const ShardPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   at::Tensor& received, at::Tensor& out, at::Tensor& lse);

// As AttentionBackward. What other ranks' queries give to the shard's keys and values is added in
// the order of their ranks. Collective over `peers`.
absl::Status ShardAttentionBackward(const ShardPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                    const at::Tensor& received, const at::Tensor& out,
                                    const at::Tensor& lse, const at::Tensor& dout,
                                    at::Tensor& dqkv);

}  // namespace ll
