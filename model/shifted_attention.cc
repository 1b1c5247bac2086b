#include "model/shifted_attention.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "kernels/common/torch_op_trace.h"
#include "model/attention_calls.h"
#include "model/sliding_window.h"

namespace ll {
namespace {

absl::Status CheckDocuments(int64_t tokens,
                            const std::vector<std::pair<int64_t, int64_t>>& documents) {
  int64_t covered = 0;
  for (const auto& [start, end] : documents) {
    if (start != covered || end < start) {
      return MakeFieldError({.field = "documents",
                             .expected = absl::StrCat("a document that starts at token ", covered),
                             .found = absl::StrCat("[", start, ", ", end, ")")});
    }
    covered = end;
  }
  if (!documents.empty() && covered != tokens) {
    return MakeFieldError(
        {.field = "documents",
         .expected = absl::StrCat("documents that cover the row's ", tokens, " tokens"),
         .found = absl::StrCat("an end at ", covered)});
  }
  return absl::OkStatus();
}

// The row tensors a run works on; with `roll` they are rotated copies for shifted runs.
struct RunTensors {
  at::Tensor qkv, out, lse, dout, dq, dkv;  // dq [N, H*D], dkv [N, 2K*D]
};

// Visible pairs of query and key times what is computed of each.
OpWork WorkOf(const AttentionPlan& plan, int64_t window,
              std::initializer_list<std::reference_wrapper<const at::Tensor>> operands,
              double products) {
  OpWork work = Moves(operands);
  for (const HeadRun& run : plan.runs) {
    double pairs = 0;
    for (const auto& [begin, end] : plan.segments[run.shifted]) {
      const auto n = static_cast<double>(end - begin);
      const double w = window > 0 ? std::min(n, static_cast<double>(window)) : n;
      pairs += w * (w + 1) / 2 + (n - w) * w;
    }
    work.flops +=
        2 * products * pairs * static_cast<double>((run.q_end - run.q_begin) * plan.head_dim);
  }
  return work;
}

// The call for a batch of a run's segments. Nothing is copied: calls read and write views of the
// row tensors.
FlashAttentionForwardCall ForwardCall(const AttentionPlan& plan, const HeadRun& run,
                                      const RunTensors& t, const SegmentBatch& batch) {
  const int64_t q_heads = run.q_end - run.q_begin, kv = run.kv_end - run.kv_begin,
                d = plan.head_dim;
  const int64_t k_first = plan.heads + run.kv_begin,
                v_first = plan.heads + plan.kv_heads + run.kv_begin;
  return {SegmentView(t.qkv, run.q_begin, q_heads, d, batch),
          SegmentView(t.qkv, k_first, kv, d, batch), SegmentView(t.qkv, v_first, kv, d, batch),
          SegmentView(t.out, run.q_begin, q_heads, d, batch),
          SegmentLse(t.lse, run.q_begin, q_heads, batch)};
}

FlashAttentionBackwardCall BackwardCall(const AttentionPlan& plan, const HeadRun& run,
                                        const RunTensors& t, const SegmentBatch& batch) {
  const FlashAttentionForwardCall f = ForwardCall(plan, run, t, batch);
  const int64_t q_heads = run.q_end - run.q_begin, kv = run.kv_end - run.kv_begin,
                d = plan.head_dim;
  return {f.q,
          f.k,
          f.v,
          f.out,
          f.lse,
          SegmentView(t.dout, run.q_begin, q_heads, d, batch),
          SegmentView(t.dq, run.q_begin, q_heads, d, batch),
          SegmentView(t.dkv, run.kv_begin, kv, d, batch),
          SegmentView(t.dkv, plan.kv_heads + run.kv_begin, kv, d, batch),
          run.add_kv};
}

// More dense calls than these for a run's segments are better packed into one: S²-Attn needs three
// on a row whose length is no multiple of a group.
constexpr size_t kDenseCalls = 3;

// What is packed of a run, where it is; fp32 has no kernel for it.
const PackedSequences* PackedOf(const AttentionPlan& plan, const HeadRun& run,
                                const at::Tensor& qkv) {
  const std::optional<PackedSequences>& packed = plan.packed[run.shifted];
  return packed && qkv.scalar_type() == at::kBFloat16 ? &*packed : nullptr;
}

// All of a run's segments as one.
SegmentBatch WholeOf(const AttentionPlan& plan, const HeadRun& run) {
  const std::vector<Segment>& all = plan.segments[run.shifted];
  return {all.front().begin, 0, 1, all.back().end - all.front().begin};
}

// Runs the calls whose segments are longer than the window and returns the others.
template <typename Call, typename Run>
std::vector<Call> RunWindowed(const std::vector<Call>& calls, int64_t window, Run run) {
  std::vector<Call> others;
  for (const Call& c : calls) {
    if (window > 0 && c.q.size(2) > window) {
      run(c, window);
    } else {
      others.push_back(c);
    }
  }
  return others;
}

void RunForward(int64_t window, const std::vector<FlashAttentionForwardCall>& all) {
  RunAttentionForward(RunWindowed(all, window, SlidingWindowForward));
}

void RunBackward(int64_t window, const std::vector<FlashAttentionBackwardCall>& all) {
  RunAttentionBackward(RunWindowed(all, window, SlidingWindowBackward));
}

}  // namespace

absl::StatusOr<AttentionPlan> MakeAttentionPlan(
    const LlamaConfig& config, const AttentionSpec& spec, int64_t tokens,
    const std::vector<std::pair<int64_t, int64_t>>& documents) {
  if (absl::Status status = CheckDocuments(tokens, documents); !status.ok()) return status;
  const bool grouped = spec.kind != AttentionKind::kFull, shifts = spec.kind == AttentionKind::kS2;
  if (grouped && spec.group_tokens < 1) {
    return MakeFieldError({.field = "group_tokens",
                           .expected = "at least 1 token in an attention group",
                           .found = absl::StrCat(spec.group_tokens),
                           .hint = "raise context_length or group_ratio"});
  }
  const bool roll = shifts && spec.wrap == WrapKind::kRoll;
  if (roll && documents.size() > 1) {
    return MakeFieldError({.field = "wrap",
                           .expected = "split for rows of several documents",
                           .found = "roll",
                           .hint = "roll exists only for parity with the paper's pseudo-code"});
  }
  if (roll && config.sliding_window > 0 && spec.group_tokens > config.sliding_window) {
    return MakeFieldError(
        {.field = "wrap",
         .expected = absl::StrCat("split, or groups within the model's sliding_window of ",
                                  config.sliding_window, " tokens"),
         .found = absl::StrCat("roll with groups of ", spec.group_tokens)});
  }
  AttentionPlan plan{
      tokens, config.num_attention_heads, config.num_key_value_heads, config.head_dim, {}, {}, 0};
  plan.runs = MakeHeadRuns(plan.heads, plan.kv_heads, shifts);
  const int64_t group = grouped ? spec.group_tokens : 0;
  plan.segments[0] = RowSegments(tokens, documents, group, false);
  plan.segments[1] = RowSegments(tokens, documents, group, shifts && !roll);
  plan.roll_tokens = roll ? spec.group_tokens / 2 : 0;
  return plan;
}

void PlaceSequences(AttentionPlan& plan, at::Device device) {
  if (!AttendsOnGpu(device)) return;
  for (const bool shifted : {false, true}) {
    const std::vector<Segment>& all = plan.segments[shifted];
    if (BatchSegments(all).size() <= kDenseCalls) continue;
    std::vector<int32_t> starts = {0};
    int64_t longest = 0;
    bool gaps = false;
    for (const Segment& s : all) {
      gaps = gaps || s.begin != all.front().begin + starts.back();
      starts.push_back(static_cast<int32_t>(s.end - all.front().begin));
      longest = std::max(longest, s.end - s.begin);
    }
    if (!gaps)
      plan.packed[shifted] = PackedSequences{at::tensor(starts, at::kInt).to(device), longest};
  }
}

void AttentionForward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                      at::Tensor& out, at::Tensor& lse) {
  const OpScope scope("attention", [&] {
    return WorkOf(plan, window, {qkv, out, lse}, kForwardProducts);
  });
  const RunTensors plain{qkv, out, lse, {}, {}, {}};
  RunTensors rolled;
  if (plan.roll_tokens > 0) {
    rolled = {qkv.roll(-plan.roll_tokens, 0), at::empty_like(out), at::empty_like(lse), {}, {}, {}};
  }
  std::vector<FlashAttentionForwardCall> calls;
  for (const HeadRun& run : plan.runs) {
    const RunTensors& t = run.shifted && plan.roll_tokens > 0 ? rolled : plain;
    if (const PackedSequences* packed = PackedOf(plan, run, qkv)) {
      CudaPackedForward(ForwardCall(plan, run, t, WholeOf(plan, run)), *packed, window);
      continue;
    }
    for (const SegmentBatch& batch : BatchSegments(plan.segments[run.shifted]))
      calls.push_back(ForwardCall(plan, run, t, batch));
  }
  RunForward(window, calls);
  if (plan.roll_tokens == 0) return;
  for (const HeadRun& run : plan.runs) {
    if (!run.shifted) continue;
    const int64_t heads = run.q_end - run.q_begin, first = run.q_begin * plan.head_dim,
                  width = heads * plan.head_dim;
    out.narrow(1, first, width).copy_(rolled.out.narrow(1, first, width).roll(plan.roll_tokens, 0));
    lse.narrow(0, run.q_begin, heads)
        .copy_(rolled.lse.narrow(0, run.q_begin, heads).roll(plan.roll_tokens, 1));
  }
}

void AttentionBackward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                       const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dout,
                       at::Tensor& dqkv) {
  const int64_t q_width = plan.heads * plan.head_dim;
  AttentionBackward(plan, window, qkv, out, lse, dout, dqkv.narrow(1, 0, q_width),
                    dqkv.narrow(1, q_width, 2 * plan.kv_heads * plan.head_dim));
}

void AttentionBackward(const AttentionPlan& plan, int64_t window, const at::Tensor& qkv,
                       const at::Tensor& out, const at::Tensor& lse, const at::Tensor& dout,
                       at::Tensor dq, at::Tensor dkv) {
  const OpScope scope("attention", [&] {
    return WorkOf(plan, window, {qkv, out, lse, dout, dq, dkv}, kBackwardProducts);
  });
  const int64_t r = plan.roll_tokens;
  const RunTensors plain{qkv, out, lse, dout, dq, dkv};
  RunTensors rolled;
  if (r > 0) {
    // Rotated and plain gradients of a KV head that both halves read are summed at the end.
    dq.zero_();
    dkv.zero_();
    rolled = {qkv.roll(-r, 0),  out.roll(-r, 0),    lse.roll(-r, 1),
              dout.roll(-r, 0), at::zeros_like(dq), at::zeros_like(dkv)};
  }
  // What a run adds to comes first.
  for (const bool adding : {false, true}) {
    std::vector<FlashAttentionBackwardCall> calls;
    for (HeadRun run : plan.runs) {
      if (r > 0) run.add_kv = false;
      if (run.add_kv != adding) continue;
      const RunTensors& t = run.shifted && r > 0 ? rolled : plain;
      if (const PackedSequences* packed = PackedOf(plan, run, qkv)) {
        CudaPackedBackward(BackwardCall(plan, run, t, WholeOf(plan, run)), *packed, window);
        continue;
      }
      for (const SegmentBatch& batch : BatchSegments(plan.segments[run.shifted]))
        calls.push_back(BackwardCall(plan, run, t, batch));
    }
    RunBackward(window, calls);
  }
  if (r == 0) return;
  dq.add_(rolled.dq.roll(r, 0));
  dkv.add_(rolled.dkv.roll(r, 0));
}

}  // namespace ll
