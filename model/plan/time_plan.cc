#include "model/plan/time_plan.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/match.h"

namespace ll {
namespace {

// Visible (query, key) pairs of causal segments that start at `first` and then every `group`
// tokens, where a query sees at most `window` keys (0: no limit).
double SegmentPairs(int64_t tokens, int64_t first, int64_t group, int64_t window) {
  double pairs = 0;
  for (int64_t start = 0, end = std::min(first, tokens); start < tokens;
       start = end, end = std::min(end + group, tokens)) {
    const double n = static_cast<double>(end - start);
    const double w = window > 0 ? std::min(n, static_cast<double>(window)) : n;
    pairs += w * (w + 1) / 2 + (n - w) * w;
  }
  return pairs;
}

// The same, added up over one layer's query heads.
double LayerPairs(int64_t heads, int64_t tokens, const std::string& kind, int64_t group,
                  int64_t window) {
  if (kind == "full")
    return static_cast<double>(heads) * SegmentPairs(tokens, tokens, tokens, window);
  const int64_t unshifted =
      kind == "short" ? heads : heads / 2;  // LongLoRA: the first half of the heads
  return static_cast<double>(unshifted) * SegmentPairs(tokens, group, group, window) +
         static_cast<double>(heads - unshifted) *
             SegmentPairs(tokens, std::max<int64_t>(1, group / 2), group, window);
}

}  // namespace

FlopCount ForwardFlops(const LlamaConfig& c, int64_t tokens, int64_t group_tokens) {
  const double n = static_cast<double>(tokens), d = static_cast<double>(c.hidden_size);
  const double layers = static_cast<double>(c.num_hidden_layers);
  const double q = static_cast<double>(c.num_attention_heads * c.head_dim);
  const double kv = static_cast<double>(c.num_key_value_heads * c.head_dim);
  FlopCount f;
  f.attention = 4 * n * static_cast<double>(group_tokens) * q * layers;
  f.projections = 4 * n * d * (q + kv) * layers;
  f.feed_forward = 6 * n * d * static_cast<double>(c.intermediate_size) * layers;
  f.others = 2 * n * d * static_cast<double>(c.vocab_size) + 4 * (2 * layers + 1) * n * d +
             6 * n * d * layers;
  return f;
}

double CausalAttentionFlops(const LlamaConfig& c, int64_t tokens, const std::string& kind,
                            int64_t group_tokens) {
  const int64_t group = std::max<int64_t>(1, group_tokens);
  double pairs = 0;
  for (int64_t l = 0; l < c.num_hidden_layers; ++l)
    pairs += LayerPairs(c.num_attention_heads, tokens, kind, group, c.WindowOf(l));
  return 4.0 * static_cast<double>(c.head_dim) * pairs;
}

Throughput ThroughputOf(const std::string& kind) {
  // gemm and attention: what well-tuned bf16 programs reach on long sequences.
  if (kind == "GeForce RTX 5090") return {165e12, 120e12, 209e12};
  if (absl::StartsWith(kind, "A100")) return {240e12, 190e12, 312e12};
  if (absl::StartsWith(kind, "H100")) return {650e12, 500e12, 989e12};
  if (absl::StartsWith(kind, "H200")) return {700e12, 550e12, 989e12};
  if (absl::StartsWith(kind, "B200")) return {1500e12, 1100e12, 2250e12};
  return {};
}

TimeForecast ForecastTime(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
                          const Throughput& device) {
  TimeForecast out;
  if (device.gemm <= 0 || device.attention <= 0 || s.kind.value_or("train") != "train") return out;
  const int64_t tokens = *s.max_seq_length;
  const int64_t group =
      static_cast<int64_t>(std::floor(*s.group_ratio * static_cast<double>(*s.context_length)));
  const double head = static_cast<double>(c.vocab_size * c.hidden_size);
  const double body =
      static_cast<double>(c.ParameterCount()) - head * (c.tie_word_embeddings ? 1 : 2);
  const bool full_tuning = s.method == "full";
  const double rho = recompute == "full" ? 1 : 0;
  // selective computes gate and up again: 4 d F of a layer's 2 * (weights) forward FLOPs.
  const double mlp =
      recompute == "selective"
          ? 4.0 * static_cast<double>(c.hidden_size * c.intermediate_size * c.num_hidden_layers)
          : 0;
  const double n = static_cast<double>(tokens);
  double gemm = n * ((4 + 2 * rho + (full_tuning ? 2 : 0)) * body + mlp);
  gemm += n * head * ((full_tuning || (c.tie_word_embeddings && s.TrainsEmbedding())) ? 6 : 4);
  // Averaged over the training: its last steps may use full attention.
  const double full_share =
      static_cast<double>(s.FullAttentionSteps()) / static_cast<double>(s.max_steps.value_or(1));
  const double attention =
      (CausalAttentionFlops(c, tokens, *s.attention, group) * (1 - full_share) +
       CausalAttentionFlops(c, tokens, "full", group) * full_share) *
      (1 + rho + 2.5);
  // Ranks that share a row: S²-Attn's transfer hides behind the local heads, so that work alone
  // counts.
  const double context = static_cast<double>(s.context_parallel.value_or(1));
  const double row_seconds = (gemm / device.gemm + attention / device.attention) / context;
  const double ranks = static_cast<double>(*s.gpus) / context,
               rows = static_cast<double>(*s.global_batch_size);
  out.step_seconds = std::ceil(rows / ranks) * row_seconds;
  out.tokens_per_second = rows * n / out.step_seconds;
  // Epochs become steps when the data is read.
  out.duration_seconds = out.step_seconds * static_cast<double>(s.max_steps.value_or(0));
  return out;
}

}  // namespace ll
