#include "model/ring_attention.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/attention_calls.h"

namespace ll {
namespace {

std::vector<Segment> ChunksOf(int64_t tokens, int ranks, int rank) {
  const auto chunk = [&](int64_t c) {
    return Segment{tokens * c / (2 * ranks), tokens * (c + 1) / (2 * ranks)};
  };
  return {chunk(rank), chunk(2 * ranks - 1 - rank)};
}

// What `mine` sees of `theirs`: a chunk sees of an earlier one what is of the document that it
// begins in.
std::vector<RingPlan::Block> BlocksOf(const std::vector<Segment>& mine,
                                      const std::vector<Segment>& theirs,
                                      const std::vector<Segment>& documents) {
  std::vector<RingPlan::Block> blocks;
  for (int64_t i = 0, q_offset = 0; i < 2; q_offset += mine[i].end - mine[i].begin, ++i) {
    const Segment& q = mine[i];
    const auto document = std::find_if(documents.begin(), documents.end(), [&q](const Segment& d) {
      return d.begin <= q.begin && q.begin < d.end;
    });
    for (int64_t j = 0, k_offset = 0; j < 2; k_offset += theirs[j].end - theirs[j].begin, ++j) {
      const Segment& k = theirs[j];
      const int64_t first = std::max(document->begin, k.begin);
      if (k.begin >= q.begin || first >= k.end) continue;
      blocks.push_back({{q_offset, q_offset + std::min(document->end, q.end) - q.begin},
                        {k_offset + first - k.begin, k_offset + k.end - k.begin}});
    }
  }
  return blocks;
}

// The columns of keys and values of a row tensor.
at::Tensor KvOf(const AttentionPlan& plan, const at::Tensor& rows) {
  return rows.narrow(1, plan.heads * plan.head_dim, 2 * plan.kv_heads * plan.head_dim);
}

// Keys and values of a rank's tokens [N, 2K*D], packed: [2, tokens, KV heads, D].
at::Tensor PackKv(const AttentionPlan& plan, const at::Tensor& kv_columns) {
  return kv_columns.unflatten(1, {2, plan.kv_heads, plan.head_dim}).transpose(0, 1).contiguous();
}

// One block's views: queries [1, H, nq, D] of a row tensor, lse [1, H, nq], keys [1, K, nk, D].
struct BlockViews {
  const AttentionPlan& plan;
  const RingPlan::Block& block;

  at::Tensor Queries(const at::Tensor& rows) const {
    return SegmentView(rows, 0, plan.heads, plan.head_dim, QueryBatch());
  }
  at::Tensor Lse(const at::Tensor& lse) const {
    return SegmentLse(lse, 0, plan.heads, QueryBatch());
  }
  at::Tensor Keys(const at::Tensor& kv, int which) const {
    return kv.select(0, which)
        .narrow(0, block.keys.begin, block.keys.end - block.keys.begin)
        .transpose(0, 1)
        .unsqueeze(0);
  }

 private:
  SegmentBatch QueryBatch() const {
    return {block.queries.begin, 0, 1, block.queries.end - block.queries.begin};
  }
};

// Partial results of a rank's queries, in fp32.
struct Merged {
  at::Tensor out;  // [N, H, D]
  at::Tensor lse;  // [H, N], the caller's

  void Add(const Segment& queries, const at::Tensor& part, const at::Tensor& part_lse) {
    const int64_t n = queries.end - queries.begin;
    at::Tensor rows = out.narrow(0, queries.begin, n), sums = lse.narrow(1, queries.begin, n);
    const at::Tensor both = at::logaddexp(sums, part_lse);
    const auto share = [&](const at::Tensor& of) { return (of - both).exp_().t().unsqueeze(2); };
    rows.mul_(share(sums)).add_(part * share(part_lse));
    sums.copy_(both);
  }
};

// Attends to one rank's keys and values.
void AddBlocks(const RingPlan& plan, size_t holder, const at::Tensor& qkv, const at::Tensor& kv,
               Merged& merged) {
  std::vector<FlashAttentionForwardCall> calls;
  const AttentionPlan& p = plan.local;
  const at::TensorOptions fp32 = merged.lse.options();
  for (const RingPlan::Block& block : plan.blocks[holder]) {
    const BlockViews views{p, block};
    const int64_t n = block.queries.end - block.queries.begin;
    const at::Tensor part = at::empty({n, p.heads, p.head_dim}, fp32);
    calls.push_back({views.Queries(qkv), views.Keys(kv, 0), views.Keys(kv, 1),
                     part.transpose(0, 1).unsqueeze(0), at::empty({1, p.heads, n}, fp32)});
  }
  RunAttentionForward(calls, /*causal=*/false);
  for (size_t i = 0; i < calls.size(); ++i) {
    merged.Add(plan.blocks[holder][i].queries, calls[i].out[0].transpose(0, 1), calls[i].lse[0]);
  }
}

// Gradients through one rank's keys and values: added to dq [N, H, D] and dkv, both fp32.
void AddBlocksBackward(const RingPlan& plan, size_t holder, const at::Tensor& qkv,
                       const at::Tensor& kv, const at::Tensor& out, const at::Tensor& lse,
                       const at::Tensor& dout, at::Tensor& dq, at::Tensor& dkv) {
  std::vector<FlashAttentionBackwardCall> calls;
  const AttentionPlan& p = plan.local;
  const at::TensorOptions fp32 = dkv.options();
  for (const RingPlan::Block& block : plan.blocks[holder]) {
    const BlockViews views{p, block};
    const int64_t n = block.queries.end - block.queries.begin;
    const at::Tensor dkeys =
        at::empty({2, block.keys.end - block.keys.begin, p.kv_heads, p.head_dim}, fp32);
    const auto heads_first = [](const at::Tensor& t) { return t.transpose(0, 1).unsqueeze(0); };
    calls.push_back({views.Queries(qkv), views.Keys(kv, 0), views.Keys(kv, 1), views.Queries(out),
                     views.Lse(lse), views.Queries(dout),
                     heads_first(at::empty({n, p.heads, p.head_dim}, fp32)), heads_first(dkeys[0]),
                     heads_first(dkeys[1])});
  }
  RunAttentionBackward(calls, /*causal=*/false);
  for (size_t i = 0; i < calls.size(); ++i) {
    const auto& [queries, keys] = plan.blocks[holder][i];
    dq.narrow(0, queries.begin, queries.end - queries.begin).add_(calls[i].dq[0].transpose(0, 1));
    at::Tensor to = dkv.narrow(1, keys.begin, keys.end - keys.begin);
    to[0].add_(calls[i].dk[0].transpose(0, 1));
    to[1].add_(calls[i].dv[0].transpose(0, 1));
  }
}

// Passes `mine` to the next rank and receives, into the result, what the one before holds.
class Turn {
 public:
  Turn(RowPeers& peers, at::Tensor mine, int64_t tokens) : peers_(peers), mine_(std::move(mine)) {
    std::vector<int64_t> shape = mine_.sizes().vec();
    shape[1] = tokens;
    theirs_ = at::empty(shape, mine_.options());
  }
  absl::Status Start() {
    const int n = peers_.world_size(), rank = peers_.rank();
    return peers_.StartExchange({{(rank + 1) % n, mine_}}, {{(rank + n - 1) % n, theirs_}});
  }
  absl::StatusOr<at::Tensor> Finish() {
    LL_RETURN_IF_ERROR(peers_.FinishExchange());
    return theirs_;
  }

 private:
  RowPeers& peers_;
  at::Tensor mine_, theirs_;
};

}  // namespace

absl::StatusOr<RingPlan> MakeRingPlan(const LlamaConfig& config, int64_t tokens,
                                      const std::vector<std::pair<int64_t, int64_t>>& documents,
                                      int ranks, int rank) {
  LL_CHECK(tokens >= 2 * ranks);
  LL_ASSIGN_OR_RETURN(const AttentionPlan row, MakeAttentionPlan(config, {}, tokens, documents));
  for (const Segment& d : row.segments[0]) {
    if (config.sliding_window > 0 && d.end - d.begin > config.sliding_window) {
      return MakeFieldError(
          {"context_parallel",
           absl::StrCat("1 where attention goes beyond the model's sliding_window of ",
                        config.sliding_window, " tokens"),
           absl::StrCat(ranks), "set sliding_window to null"});
    }
  }
  RingPlan plan;
  plan.chunks = ChunksOf(tokens, ranks, rank);
  plan.local = row;
  plan.local.segments[0].clear();
  int64_t offset = 0;
  for (const Segment& chunk : plan.chunks) {
    for (const Segment& d : row.segments[0]) {
      const Segment part{std::max(d.begin, chunk.begin), std::min(d.end, chunk.end)};
      if (part.begin < part.end) {
        plan.local.segments[0].push_back(
            {part.begin - chunk.begin + offset, part.end - chunk.begin + offset});
      }
    }
    offset += chunk.end - chunk.begin;
  }
  plan.local.segments[1] = plan.local.segments[0];
  plan.local.tokens = offset;
  for (int other = 0; other < ranks; ++other) {
    const std::vector<Segment> theirs = ChunksOf(tokens, ranks, other);
    plan.holds.push_back(theirs[0].end - theirs[0].begin + theirs[1].end - theirs[1].begin);
    plan.blocks.push_back(BlocksOf(plan.chunks, theirs, row.segments[0]));
  }
  return plan;
}

absl::Status RingAttentionForward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                  at::Tensor& out, at::Tensor& lse) {
  const int n = peers.world_size(), rank = peers.rank();
  at::Tensor kv = PackKv(plan.local, KvOf(plan.local, qkv));
  Merged merged;
  for (int turn = 0; turn < n; ++turn) {
    const int holder = (rank - turn + n) % n, next = (holder + n - 1) % n;
    Turn passing(peers, kv, plan.holds[next]);
    if (turn + 1 < n) LL_RETURN_IF_ERROR(passing.Start());
    if (turn == 0) {
      at::Tensor own = at::empty(out.sizes(), lse.options());
      AttentionForward(plan.local, /*window=*/0, qkv, own, lse);
      merged = {own.view({-1, plan.local.heads, plan.local.head_dim}), lse};
    }
    AddBlocks(plan, holder, qkv, kv, merged);
    if (turn + 1 < n) {
      LL_ASSIGN_OR_RETURN(kv, passing.Finish());
    }
  }
  out.copy_(merged.out.view(out.sizes()));
  return absl::OkStatus();
}

absl::Status RingAttentionBackward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   const at::Tensor& out, const at::Tensor& lse,
                                   const at::Tensor& dout, at::Tensor& dqkv) {
  const AttentionPlan& p = plan.local;
  const int n = peers.world_size(), rank = peers.rank();
  at::Tensor kv = PackKv(p, KvOf(p, qkv));
  at::Tensor dq = at::empty({p.tokens, p.heads, p.head_dim}, lse.options()), dkv;  // fp32
  for (int turn = 0; turn < n; ++turn) {
    const int holder = (rank - turn + n) % n, next = (holder + n - 1) % n;
    Turn passing(peers, kv, plan.holds[next]);
    if (turn + 1 < n) LL_RETURN_IF_ERROR(passing.Start());
    // The block's own gradients, with the final log-sum-exps, are the block's part of the whole.
    if (turn == 0) {
      const at::Tensor own = at::empty(KvOf(p, dqkv).sizes(), lse.options());
      AttentionBackward(p, /*window=*/0, qkv, out, lse, dout, dq.flatten(1), own);
      dkv = PackKv(p, own);
    }
    AddBlocksBackward(plan, holder, qkv, kv, out, lse, dout, dq, dkv);
    if (turn + 1 < n) {
      LL_ASSIGN_OR_RETURN(kv, passing.Finish());
    }
    // The gradients follow their block; after the last turn they are home.
    Turn following(peers, dkv, plan.holds[next]);
    LL_RETURN_IF_ERROR(following.Start());
    LL_ASSIGN_OR_RETURN(dkv, following.Finish());
  }
  dqkv.narrow(1, 0, p.heads * p.head_dim).copy_(dq.flatten(1));
  KvOf(p, dqkv).unflatten(1, {2, p.kv_heads, p.head_dim}).copy_(dkv.transpose(0, 1));
  return absl::OkStatus();
}

}  // namespace ll
