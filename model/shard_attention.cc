#include "model/shard_attention.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/attention_calls.h"

namespace ll {
namespace {

// The columns of keys and values of a row tensor [N, (H + 2K) D]: [N, 2K D].
at::Tensor KvColumns(const AttentionPlan& plan, const at::Tensor& rows) {
  return rows.narrow(1, plan.heads * plan.head_dim, 2 * plan.kv_heads * plan.head_dim);
}

// Keys (0) and values (1) of KV heads [first, first + heads) in rows [begin, begin + count) of
// [N, 2K D]: [count, heads, D].
at::Tensor OwnKv(const AttentionPlan& plan, const at::Tensor& kv, int which, int64_t begin,
                 int64_t count, int64_t first, int64_t heads) {
  const int64_t head = which * plan.kv_heads + first;
  return kv.narrow(0, begin, count)
      .narrow(1, head * plan.head_dim, heads * plan.head_dim)
      .unflatten(1, {heads, plan.head_dim});
}

// The parts of a flat buffer that belong to transfers: [2, tokens, heads, D] each.
std::vector<at::Tensor> Parts(const std::vector<CpTransfer>& transfers, int64_t head_dim,
                              const at::Tensor& flat) {
  std::vector<at::Tensor> parts;
  int64_t at = 0;
  for (const CpTransfer& t : transfers) {
    const int64_t elements = t.Elements(head_dim);
    parts.push_back(flat.narrow(0, at, elements)
                        .view({2, t.tokens.end - t.tokens.begin, t.kv_end - t.kv_begin, head_dim}));
    at += elements;
  }
  return parts;
}

int64_t Elements(const std::vector<CpTransfer>& transfers, int64_t head_dim) {
  int64_t sum = 0;
  for (const CpTransfer& t : transfers) sum += t.Elements(head_dim);
  return sum;
}

// Calls visit(part of a transfer, the same keys and values in the reach's own buffer) for what the
// transfer holds of the reach's keys. `buffer` [2, keys, heads, D].
template <typename Visit>
void ForEachOverlap(const ShardPlan::Reach& reach, const std::vector<CpTransfer>& transfers,
                    const std::vector<at::Tensor>& parts, const at::Tensor& buffer, Visit visit) {
  for (size_t i = 0; i < transfers.size(); ++i) {
    const CpTransfer& t = transfers[i];
    const int64_t token = std::max(t.tokens.begin, reach.begin), tokens = t.tokens.end - token;
    const int64_t kv = std::max(t.kv_begin, reach.run.kv_begin),
                  heads = std::min(t.kv_end, reach.run.kv_end) - kv;
    if (tokens <= 0 || heads <= 0) continue;
    visit(parts[i].narrow(1, token - t.tokens.begin, tokens).narrow(2, kv - t.kv_begin, heads),
          buffer.narrow(1, token - reach.begin, tokens).narrow(2, kv - reach.run.kv_begin, heads));
  }
}

// Keys and values of a reaching segment, others' in front of the shard's own.
at::Tensor KeysAndValues(const ShardPlan& plan, const ShardPlan::Reach& reach,
                         const at::Tensor& qkv, const std::vector<at::Tensor>& received) {
  const int64_t before = plan.shard.begin - reach.begin,
                heads = reach.run.kv_end - reach.run.kv_begin;
  const at::Tensor kv =
      at::empty({2, before + reach.queries, heads, plan.local.head_dim}, qkv.options());
  ForEachOverlap(reach, plan.receives, received, kv,
                 [](const at::Tensor& theirs, const at::Tensor& here) { here.copy_(theirs); });
  const at::Tensor own = KvColumns(plan.local, qkv);
  for (int which = 0; which < 2; ++which) {
    kv.select(0, which)
        .narrow(0, before, reach.queries)
        .copy_(OwnKv(plan.local, own, which, 0, reach.queries, reach.run.kv_begin, heads));
  }
  return kv;
}

// [2, keys, heads, D] as the kernels want keys (0) or values (1): [1, heads, keys, D].
at::Tensor AsHeads(const at::Tensor& kv, int which) {
  return kv.select(0, which).transpose(0, 1).unsqueeze(0);
}

struct ReachQueries {
  SegmentBatch batch;
  int64_t first = 0, heads = 0, head_dim = 0;
  at::Tensor Of(const at::Tensor& rows) const {
    return SegmentView(rows, first, heads, head_dim, batch);
  }
  at::Tensor Lse(const at::Tensor& lse) const { return SegmentLse(lse, first, heads, batch); }
};

ReachQueries QueriesOf(const ShardPlan& plan, const ShardPlan::Reach& reach) {
  return {{0, 0, 1, reach.queries},
          reach.run.q_begin,
          reach.run.q_end - reach.run.q_begin,
          plan.local.head_dim};
}

std::vector<PeerMessage> MessagesTo(const std::vector<CpTransfer>& transfers,
                                    const std::vector<at::Tensor>& parts, bool to_sender) {
  std::vector<PeerMessage> messages;
  for (size_t i = 0; i < transfers.size(); ++i)
    messages.push_back({to_sender ? transfers[i].from : transfers[i].to, parts[i]});
  return messages;
}

// Adds, or writes, a reach's gradient of the shard's own keys and values.
void StoreOwn(const ShardPlan& plan, const ShardPlan::Reach& reach, const at::Tensor& dkv,
              const at::Tensor& to) {
  const int64_t before = plan.shard.begin - reach.begin;
  for (int which = 0; which < 2; ++which) {
    const at::Tensor own = OwnKv(plan.local, to, which, 0, reach.queries, reach.run.kv_begin,
                                 reach.run.kv_end - reach.run.kv_begin);
    const at::Tensor mine = dkv.select(0, which).narrow(0, before, reach.queries);
    reach.run.add_kv ? own.add_(mine) : own.copy_(mine);
  }
}

}  // namespace

int64_t ShardPlan::ReceivedElements() const { return Elements(receives, local.head_dim); }

absl::StatusOr<ShardPlan> MakeShardPlan(const LlamaConfig& config, const AttentionSpec& spec,
                                        int64_t tokens,
                                        const std::vector<std::pair<int64_t, int64_t>>& documents,
                                        int ranks, int rank) {
  LL_ASSIGN_OR_RETURN(const AttentionPlan row, MakeAttentionPlan(config, spec, tokens, documents));
  if (row.roll_tokens > 0) {
    return MakeFieldError({"context_parallel", "1 with wrap: roll", absl::StrCat(ranks),
                           "wrap: split lets no token see the future and can be divided"});
  }
  ShardPlan plan;
  plan.shard = CpShard(tokens, ranks, rank);
  plan.local = row;
  plan.local.tokens = plan.shard.end - plan.shard.begin;
  for (const bool shifted : {false, true}) {
    for (const Segment& s : row.segments[shifted]) {
      if (config.sliding_window > 0 && s.end - s.begin > config.sliding_window) {
        return MakeFieldError(
            {"context_parallel",
             absl::StrCat("1 where attention goes beyond the model's sliding_window of ",
                          config.sliding_window, " tokens"),
             absl::StrCat(ranks), "shorten the groups, or set sliding_window to null"});
      }
    }
    plan.local.segments[shifted] = ShardSegments(row.segments[shifted], plan.shard).local;
    for (Segment& s : plan.local.segments[shifted]) {
      s.begin -= plan.shard.begin;
      s.end -= plan.shard.begin;
    }
  }
  for (const HeadRun& run : row.runs) {
    const auto reaching = ShardSegments(row.segments[run.shifted], plan.shard).reaching;
    if (reaching) plan.reaches.push_back({run, reaching->begin, reaching->end - plan.shard.begin});
  }
  for (const CpTransfer& t : CpExchange(tokens, row.segments, row.runs, ranks)) {
    if (t.from == rank) plan.sends.push_back(t);
    if (t.to == rank) plan.receives.push_back(t);
  }
  return plan;
}

absl::Status ShardAttentionForward(const ShardPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   at::Tensor& received, at::Tensor& out, at::Tensor& lse) {
  const AttentionPlan& local = plan.local;
  const std::vector<at::Tensor> sent = Parts(
      plan.sends, local.head_dim, at::empty({Elements(plan.sends, local.head_dim)}, qkv.options()));
  const at::Tensor own = KvColumns(local, qkv);
  for (size_t i = 0; i < sent.size(); ++i) {
    const CpTransfer& t = plan.sends[i];
    for (int which = 0; which < 2; ++which) {
      sent[i].select(0, which).copy_(OwnKv(local, own, which, t.tokens.begin - plan.shard.begin,
                                           t.tokens.end - t.tokens.begin, t.kv_begin,
                                           t.kv_end - t.kv_begin));
    }
  }
  const std::vector<at::Tensor> theirs = Parts(plan.receives, local.head_dim, received);
  LL_RETURN_IF_ERROR(peers.StartExchange(MessagesTo(plan.sends, sent, /*to_sender=*/false),
                                         MessagesTo(plan.receives, theirs, /*to_sender=*/true)));
  AttentionForward(local, /*window=*/0, qkv, out, lse);
  LL_RETURN_IF_ERROR(peers.FinishExchange());
  std::vector<FlashAttentionForwardCall> calls;
  for (const ShardPlan::Reach& reach : plan.reaches) {
    const at::Tensor kv = KeysAndValues(plan, reach, qkv, theirs);
    const ReachQueries q = QueriesOf(plan, reach);
    calls.push_back({q.Of(qkv), AsHeads(kv, 0), AsHeads(kv, 1), q.Of(out), q.Lse(lse)});
  }
  RunAttentionForward(calls);
  return absl::OkStatus();
}

absl::Status ShardAttentionBackward(const ShardPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                    const at::Tensor& received, const at::Tensor& out,
                                    const at::Tensor& lse, const at::Tensor& dout,
                                    at::Tensor& dqkv) {
  const AttentionPlan& local = plan.local;
  const std::vector<at::Tensor> theirs = Parts(plan.receives, local.head_dim, received);
  std::vector<FlashAttentionBackwardCall> calls;
  // fp32, as all parts of the shard's own sum are: it is rounded once, at the end.
  const at::Tensor dkv =
      at::empty({local.tokens, 2 * local.kv_heads * local.head_dim}, lse.options());
  std::vector<at::Tensor> dkvs;  // of each reach
  for (const ShardPlan::Reach& reach : plan.reaches) {
    const at::Tensor kv = KeysAndValues(plan, reach, qkv, theirs);
    dkvs.push_back(at::empty(kv.sizes(), dkv.options()));
    const ReachQueries q = QueriesOf(plan, reach);
    calls.push_back({q.Of(qkv), AsHeads(kv, 0), AsHeads(kv, 1), q.Of(out), q.Lse(lse), q.Of(dout),
                     q.Of(dqkv), AsHeads(dkvs.back(), 0), AsHeads(dkvs.back(), 1)});
  }
  RunAttentionBackward(calls);

  const std::vector<at::Tensor> given =
      Parts(plan.receives, local.head_dim, at::zeros({plan.ReceivedElements()}, qkv.options()));
  for (size_t i = 0; i < dkvs.size(); ++i) {
    ForEachOverlap(plan.reaches[i], plan.receives, given, dkvs[i],
                   [](const at::Tensor& sum, const at::Tensor& part) { sum.add_(part); });
  }
  const std::vector<at::Tensor> got = Parts(
      plan.sends, local.head_dim, at::empty({Elements(plan.sends, local.head_dim)}, qkv.options()));
  LL_RETURN_IF_ERROR(peers.StartExchange(MessagesTo(plan.receives, given, /*to_sender=*/true),
                                         MessagesTo(plan.sends, got, /*to_sender=*/false)));
  // A KV head of two runs: the first one's reach and segments write all its tokens before the
  // second one's are added.
  for (size_t i = 0; i < dkvs.size(); ++i) {
    if (!plan.reaches[i].run.add_kv) StoreOwn(plan, plan.reaches[i], dkvs[i], dkv);
  }
  AttentionBackward(local, /*window=*/0, qkv, out, lse, dout,
                    dqkv.narrow(1, 0, local.heads * local.head_dim), dkv);
  for (size_t i = 0; i < dkvs.size(); ++i) {
    if (plan.reaches[i].run.add_kv) StoreOwn(plan, plan.reaches[i], dkvs[i], dkv);
  }
  LL_RETURN_IF_ERROR(peers.FinishExchange());
  for (size_t i = 0; i < got.size(); ++i) {
    const CpTransfer& t = plan.sends[i];
    for (int which = 0; which < 2; ++which) {
      OwnKv(local, dkv, which, t.tokens.begin - plan.shard.begin, t.tokens.end - t.tokens.begin,
            t.kv_begin, t.kv_end - t.kv_begin)
          .add_(got[i].select(0, which));
    }
  }
  KvColumns(local, dqkv).copy_(dkv);
  return absl::OkStatus();
}

}  // namespace ll
