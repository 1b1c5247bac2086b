#include "model/ring_attention.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/ops.h"
#include "model/attention_calls.h"

namespace ll {
namespace {

std::vector<Segment> ChunksOf(int64_t tokens, int ranks, int rank) {
  const auto chunk = [&](int64_t c) {
    return Segment{tokens * c / (2 * ranks), tokens * (c + 1) / (2 * ranks)};
  };
  return {chunk(rank), chunk(2 * ranks - 1 - rank)};
}

// The document of `row` that token `at` belongs to.
Segment DocumentAt(const AttentionPlan& row, int64_t at) {
  const std::vector<Segment>& all = row.segments[0];
  return *std::find_if(all.begin(), all.end(),
                       [at](const Segment& d) { return d.begin <= at && at < d.end; });
}

// What the chunks `mine` see of another rank's chunks `theirs`: a chunk sees of an earlier one what
// is of the document that it begins in. It is one rectangle: where two chunks see something, they
// or what they see are of one document, which holds all that lies between.
std::optional<RingPlan::Block> BlockOf(const std::vector<Segment>& mine,
                                       const std::vector<Segment>& theirs,
                                       const AttentionPlan& row) {
  std::optional<RingPlan::Block> block;
  for (int64_t i = 0, q_offset = 0; i < 2; q_offset += mine[i].end - mine[i].begin, ++i) {
    const Segment& q = mine[i];
    const Segment document = DocumentAt(row, q.begin);
    for (int64_t j = 0, k_offset = 0; j < 2; k_offset += theirs[j].end - theirs[j].begin, ++j) {
      const Segment& k = theirs[j];
      const int64_t first = std::max(document.begin, k.begin);
      if (k.begin >= q.begin || first >= k.end) continue;
      const RingPlan::Block part{{q_offset, q_offset + std::min(document.end, q.end) - q.begin},
                                 {k_offset + first - k.begin, k_offset + k.end - k.begin}};
      if (!block) {
        block = part;
      } else if (part.queries == block->queries) {
        LL_CHECK(part.keys.begin == block->keys.end);
        block->keys.end = part.keys.end;
      } else {
        LL_CHECK(part.keys == block->keys && part.queries.begin == block->queries.end);
        block->queries.end = part.queries.end;
      }
    }
  }
  return block;
}

// The columns of keys and values of a row tensor.
at::Tensor KvOf(const AttentionPlan& plan, const at::Tensor& rows) {
  return rows.narrow(1, plan.heads * plan.head_dim, 2 * plan.kv_heads * plan.head_dim);
}

SegmentBatch OneOf(const Segment& s) { return {s.begin, 0, 1, s.end - s.begin}; }

// A block's views of row tensors: [1, heads, length, D], and of lse [1, H, length].
struct BlockViews {
  const AttentionPlan& plan;
  const RingPlan::Block& block;

  at::Tensor Queries(const at::Tensor& rows) const { return OfQueries(rows, block.queries); }
  at::Tensor Lse(const at::Tensor& lse) const {
    return SegmentLse(lse, 0, plan.heads, OneOf(block.queries));
  }
  at::Tensor Keys(const at::Tensor& kv) const { return OfKeys(kv, 0); }
  at::Tensor Values(const at::Tensor& kv) const { return OfKeys(kv, plan.kv_heads); }
  // Of buffers that hold one block's queries and nothing else.
  at::Tensor First(const at::Tensor& rows) const { return OfQueries(rows, Count()); }
  at::Tensor FirstLse(const at::Tensor& lse) const {
    return SegmentLse(lse, 0, plan.heads, OneOf(Count()));
  }
  // Pairs of query and key times what is computed of each, and bytes of no account beside it.
  OpWork Work(double products, bool causal) const {
    const auto q = static_cast<double>(block.queries.end - block.queries.begin),
               k = static_cast<double>(block.keys.end - block.keys.begin);
    const double pairs = q * k - (causal ? q * (q - 1) / 2 : 0);
    return {2 * products * pairs * static_cast<double>(plan.heads * plan.head_dim), 0};
  }

 private:
  Segment Count() const { return {0, block.queries.end - block.queries.begin}; }
  at::Tensor OfQueries(const at::Tensor& rows, const Segment& which) const {
    return SegmentView(rows, 0, plan.heads, plan.head_dim, OneOf(which));
  }
  at::Tensor OfKeys(const at::Tensor& kv, int64_t first) const {
    return SegmentView(kv, first, plan.kv_heads, plan.head_dim, OneOf(block.keys));
  }
};

// The first `rows` rows of `buffer`, which grows to hold them.
at::Tensor RowsOf(at::Tensor& buffer, int64_t rows, at::IntArrayRef row, at::TensorOptions type) {
  std::vector<int64_t> shape{rows};
  shape.insert(shape.end(), row.begin(), row.end());
  if (!buffer.defined() || buffer.size(0) < rows) {
    buffer = at::Tensor();  // the old one goes before the new one comes
    buffer = at::empty(shape, type);
  }
  return buffer.narrow(0, 0, rows);
}

// Views of the buffers for one row.
RingBuffers Views(const RingPlan& plan, const at::Tensor& qkv, bool backward, RingBuffers& b) {
  const AttentionPlan& p = plan.local;
  const int64_t most = *std::max_element(plan.holds.begin(), plan.holds.end()),
                kv_width = 2 * p.kv_heads * p.head_dim;
  const at::TensorOptions fp32 = qkv.options().dtype(at::kFloat);
  RingBuffers v;
  for (int i : {0, 1}) {
    v.kv[i] = RowsOf(b.kv[i], most, {kv_width}, qkv.options());
    if (backward) v.dkv[i] = RowsOf(b.dkv[i], most, {kv_width}, fp32);
  }
  v.sum = RowsOf(b.sum, p.tokens, {p.heads, p.head_dim}, fp32);
  v.part = RowsOf(b.part, p.tokens, {p.heads, p.head_dim}, fp32);
  v.part_lse = RowsOf(b.part_lse, p.heads * p.tokens, {}, fp32).view({p.heads, p.tokens});
  return v;
}

// This rank's queries on its own keys: out and lse are written.
void OwnForward(const RingPlan& plan, const at::Tensor& qkv, at::Tensor out, at::Tensor& lse) {
  AttentionForward(plan.local, /*window=*/0, qkv, out, lse);
  if (!plan.spanning) return;
  const BlockViews views{plan.local, *plan.spanning};
  const at::Tensor kv = KvOf(plan.local, qkv);
  const OpScope scope("attention", [&] { return views.Work(kForwardProducts, true); });
  RunAttentionForward(
      {{views.Queries(qkv), views.Keys(kv), views.Values(kv), views.Queries(out), views.Lse(lse)}},
      /*causal=*/true);
}

// Its gradients: dq and dkv are written.
void OwnBackward(const RingPlan& plan, const at::Tensor& qkv, const at::Tensor& out,
                 const at::Tensor& lse, const at::Tensor& dout, at::Tensor dq, at::Tensor dkv) {
  AttentionBackward(plan.local, /*window=*/0, qkv, out, lse, dout, dq, dkv);
  if (!plan.spanning) return;
  const BlockViews views{plan.local, *plan.spanning};
  const auto [begin, end] = plan.spanning->queries;
  dkv.narrow(0, begin, end - begin).zero_();  // what lies in front has gradients already
  const at::Tensor kv = KvOf(plan.local, qkv);
  const OpScope scope("attention", [&] { return views.Work(kBackwardProducts, true); });
  RunAttentionBackward(
      {{views.Queries(qkv), views.Keys(kv), views.Values(kv), views.Queries(out), views.Lse(lse),
        views.Queries(dout), views.Queries(dq), views.Keys(dkv), views.Values(dkv),
        /*accumulate_dkv=*/true}},
      /*causal=*/true);
}

// Attends to another rank's keys and values.
void AddBlock(const RingPlan& plan, const RingPlan::Block& block, const at::Tensor& qkv,
              const at::Tensor& kv, RingBuffers& b, at::Tensor& lse) {
  const BlockViews views{plan.local, block};
  {
    const OpScope scope("attention", [&] { return views.Work(kForwardProducts, false); });
    RunAttentionForward({{views.Queries(qkv), views.Keys(kv), views.Values(kv),
                          views.First(b.part.flatten(1)), views.FirstLse(b.part_lse)}},
                        /*causal=*/false);
  }
  const int64_t begin = block.queries.begin, n = block.queries.end - begin;
  at::Tensor sum = b.sum.narrow(0, begin, n), sum_lse = lse.narrow(1, begin, n);
  MergeAttention(sum, sum_lse, b.part.narrow(0, 0, n), b.part_lse.narrow(1, 0, n));
}

// Gradients through another rank's keys and values: added to the sum of dq and to dkv. With the
// final log-sum-exps they are the block's part of the whole.
void AddBlockBackward(const RingPlan& plan, const RingPlan::Block& block, const at::Tensor& qkv,
                      const at::Tensor& kv, const at::Tensor& out, const at::Tensor& lse,
                      const at::Tensor& dout, RingBuffers& b, const at::Tensor& dkv) {
  const BlockViews views{plan.local, block};
  {
    const OpScope scope("attention", [&] { return views.Work(kBackwardProducts, false); });
    RunAttentionBackward(
        {{views.Queries(qkv), views.Keys(kv), views.Values(kv), views.Queries(out), views.Lse(lse),
          views.Queries(dout), views.First(b.part.flatten(1)), views.Keys(dkv), views.Values(dkv),
          /*accumulate_dkv=*/true}},
        /*causal=*/false);
  }
  const int64_t begin = block.queries.begin, n = block.queries.end - begin;
  at::Tensor sum = b.sum.narrow(0, begin, n);
  AccumulateInto(sum, b.part.narrow(0, 0, n));
}

// What goes round: `at_hand` is passed to the next rank, and what the one before holds comes into
// the other buffer.
class Carousel {
 public:
  Carousel(RowPeers& peers, const RingPlan& plan, at::Tensor (&buffers)[2])
      : peers_(peers), plan_(plan), buffers_(buffers) {}

  at::Tensor at_hand() const { return buffers_[turn_ % 2].narrow(0, 0, plan_.holds[Holder()]); }
  // The rank whose block is at hand.
  size_t Holder() const { return static_cast<size_t>((peers_.rank() - turn_ + n()) % n()); }

  absl::Status StartToPass() {
    const at::Tensor mine = at_hand();
    ++turn_;
    const int rank = peers_.rank();
    return peers_.StartExchange({{(rank + 1) % n(), mine}}, {{(rank + n() - 1) % n(), at_hand()}});
  }
  absl::Status Finish() { return peers_.FinishExchange(); }

 private:
  int n() const { return peers_.world_size(); }

  RowPeers& peers_;
  const RingPlan& plan_;
  at::Tensor (&buffers_)[2];
  int turn_ = 0;
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
      if (part.begin >= part.end) continue;
      const Segment here{part.begin - chunk.begin + offset, part.end - chunk.begin + offset};
      const Segment& first = plan.chunks[0];
      if (offset > 0 && part.begin == chunk.begin && d.begin < first.end) {
        plan.spanning = {here, {std::max(d.begin, first.begin) - first.begin, here.end}};
      } else {
        plan.local.segments[0].push_back(here);
      }
    }
    offset += chunk.end - chunk.begin;
  }
  plan.local.segments[1] = plan.local.segments[0];
  plan.local.tokens = offset;
  for (int other = 0; other < ranks; ++other) {
    const std::vector<Segment> theirs = ChunksOf(tokens, ranks, other);
    plan.holds.push_back(theirs[0].end - theirs[0].begin + theirs[1].end - theirs[1].begin);
    plan.blocks.push_back(other == rank ? std::nullopt : BlockOf(plan.chunks, theirs, row));
  }
  return plan;
}

absl::Status RingAttentionForward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                  RingBuffers& scratch, at::Tensor& out, at::Tensor& lse) {
  RingBuffers buffers = Views(plan, qkv, /*backward=*/false, scratch);
  Carousel kv(peers, plan, buffers.kv);
  kv.at_hand().copy_(KvOf(plan.local, qkv));
  for (int turn = 0; turn < peers.world_size(); ++turn) {
    const at::Tensor at_hand = kv.at_hand();
    const std::optional<RingPlan::Block>& block = plan.blocks[kv.Holder()];
    const bool last = turn + 1 == peers.world_size();
    if (!last) LL_RETURN_IF_ERROR(kv.StartToPass());
    if (turn == 0) OwnForward(plan, qkv, buffers.sum.flatten(1), lse);
    if (block) AddBlock(plan, *block, qkv, at_hand, buffers, lse);
    if (!last) LL_RETURN_IF_ERROR(kv.Finish());
  }
  out.copy_(buffers.sum.flatten(1));
  return absl::OkStatus();
}

absl::Status RingAttentionBackward(const RingPlan& plan, RowPeers& peers, const at::Tensor& qkv,
                                   const at::Tensor& out, const at::Tensor& lse,
                                   const at::Tensor& dout, RingBuffers& scratch, at::Tensor& dqkv) {
  RingBuffers buffers = Views(plan, qkv, /*backward=*/true, scratch);
  const AttentionPlan& p = plan.local;
  Carousel kv(peers, plan, buffers.kv), dkv(peers, plan, buffers.dkv);
  kv.at_hand().copy_(KvOf(p, qkv));
  for (int turn = 0; turn < peers.world_size(); ++turn) {
    const at::Tensor at_hand = kv.at_hand();
    const std::optional<RingPlan::Block>& block = plan.blocks[kv.Holder()];
    const bool last = turn + 1 == peers.world_size();
    if (!last) LL_RETURN_IF_ERROR(kv.StartToPass());
    if (turn == 0) OwnBackward(plan, qkv, out, lse, dout, buffers.sum.flatten(1), dkv.at_hand());
    if (block) AddBlockBackward(plan, *block, qkv, at_hand, out, lse, dout, buffers, dkv.at_hand());
    if (!last) LL_RETURN_IF_ERROR(kv.Finish());
    // The gradients follow their block; after the last turn they are home.
    LL_RETURN_IF_ERROR(dkv.StartToPass());
    LL_RETURN_IF_ERROR(dkv.Finish());
  }
  dqkv.narrow(1, 0, p.heads * p.head_dim).copy_(buffers.sum.flatten(1));
  KvOf(p, dqkv).copy_(dkv.at_hand());
  return absl::OkStatus();
}

}  // namespace ll
