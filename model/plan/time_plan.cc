#include "model/plan/time_plan.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/string_view.h"
#include "model/plan/job_shape.h"
#include "model/plan/memory_plan.h"

namespace ll {
namespace {

// Visible (query, key) pairs of a segment's first n queries, where one sees at most `window` keys
// (0: no limit).
double FirstPairs(int64_t n, int64_t window) {
  const auto queries = static_cast<double>(n);
  const double w = window > 0 ? static_cast<double>(std::min(n, window)) : queries;
  return w * (w + 1) / 2 + (queries - w) * w;
}

// Adds `times` the pairs of causal segments that start at `first` and then every `group` tokens to
// those of the shards of equal length that the queries are in.
void AddSegmentPairs(double times, int64_t tokens, int64_t first, int64_t group, int64_t window,
                     std::vector<double>& pairs_of) {
  const auto shards = static_cast<int64_t>(pairs_of.size());
  int64_t shard = 0;
  for (int64_t start = 0, end = std::min(first, tokens); start < tokens;
       start = end, end = std::min(end + group, tokens)) {
    for (int64_t at = start; at < end;) {
      while ((shard + 1) * tokens / shards <= at) ++shard;
      const int64_t next = std::min(end, (shard + 1) * tokens / shards);
      pairs_of[static_cast<size_t>(shard)] +=
          times * (FirstPairs(next - start, window) - FirstPairs(at - start, window));
      at = next;
    }
  }
}

// FLOPs of attention's forward pass over all layers by the shard of the row that the queries are
// in.
std::vector<double> AttentionFlopsOfShards(const LlamaConfig& c, int64_t tokens,
                                           const std::string& kind, int64_t group, int64_t shards) {
  std::vector<double> pairs(static_cast<size_t>(shards), 0.0);
  const int64_t heads = c.num_attention_heads;
  // LongLoRA: the first half of the heads is not shifted.
  const int64_t unshifted = kind == "s2" ? heads / 2 : heads;
  const int64_t length = kind == "full" ? tokens : std::max<int64_t>(1, group);
  for (int64_t l = 0; l < c.num_hidden_layers; ++l) {
    const int64_t window = c.WindowOf(l);
    AddSegmentPairs(static_cast<double>(unshifted), tokens, length, length, window, pairs);
    if (unshifted == heads) continue;
    AddSegmentPairs(static_cast<double>(heads - unshifted), tokens,
                    std::max<int64_t>(1, length / 2), length, window, pairs);
  }
  for (double& p : pairs) p *= 4.0 * static_cast<double>(c.head_dim);
  return pairs;
}

// ---- one optimizer step

// A product with LoRA's thin matrices takes about as long as one of so many more ranks, where no
// probe knows better: tiles of matrix units are filled with nothing, and all of the wide operand is
// read for little (measured on a CPU with AMX: 0.33 of the rate of wide products at rank 8, 0.8 at
// 64).
constexpr double kThinRanks = 16;
// Share of its computing time that a layer's transfers to host memory cost even when they hide
// (Unsloth measured 1.9 %).
constexpr double kOffloadShare = 0.02;

// fp32 takes twice the bytes and reaches less than half the rate, where no probe knows better.
constexpr double kSlowerInFp32 = 2.2;

// A gradient in bf16 that is added to an fp32 sum, for an element: 2 bytes written, 2 read, 4 read
// and written.
constexpr double kHeadSumBytes = 12;

double OrElse(double measured, double derived) { return measured > 0 ? measured : derived; }

// One row, all its tokens on one device, in seconds.
struct RowWork {
  double gemm = 0, attention = 0, recompute = 0, elementwise = 0, expansion = 0;
};

// FLOPs of one token's products that are computed again. The layer's last product (down_proj) is
// not: nothing in its backward pass needs its result.
double RecomputedProducts(const LlamaConfig& c, const std::string& recompute) {
  const double mlp = static_cast<double>(c.hidden_size * c.intermediate_size * c.num_hidden_layers);
  if (recompute == "full") return 2 * (static_cast<double>(LinearParameterCount(c)) - mlp);
  return recompute == "selective" ? 4 * mlp : 0;  // gate and up
}

// The same of the adapters, in FLOPs.
double RecomputedLora(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  if (recompute == "none") return 0;
  const auto rank = 2.0 * static_cast<double>(s.lora_rank.value_or(0) * c.num_hidden_layers);
  const auto h = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size);
  if (recompute == "full") {
    return 2 * static_cast<double>(LoraParameterCount(c, s)) -
           (Adapts(s, "down_proj") ? rank * (h + f) : 0);
  }
  return rank * (h + f) * (Adapts(s, "gate_proj") + Adapts(s, "up_proj"));
}

// Share of the steps whose attention is full.
double FullAttentionShare(const JobSpec& s) {
  if (s.attention.value_or("s2") == "full") return 1;
  return static_cast<double>(s.FullAttentionSteps()) / static_cast<double>(s.max_steps.value_or(1));
}

// FLOPs of attention's forward pass, all layers, as many as if every rank had as much to do as the
// one that has most, for which the others wait: the first shard's shifted heads begin with half a
// group that sees nothing before it. A ring's shards are equal (zig-zag). A query costs
// `extra_keys` more than it sees, in a ring (model/ring_attention.h) once for each rank whose keys
// it sees: of the last one, all.
double AttentionFlops(const LlamaConfig& c, const JobSpec& s, double extra_keys) {
  const int64_t tokens = RowTokens(c, s), context = s.context_parallel.value_or(1);
  const int64_t group = S2GroupTokens(c, s);
  const double full_share = FullAttentionShare(s), others = static_cast<double>(context - 1);
  double flops = 0;
  if (full_share < 1) {
    const std::vector<double> shards =
        AttentionFlopsOfShards(c, tokens, *s.attention, group, context);
    flops += *std::max_element(shards.begin(), shards.end()) * static_cast<double>(context) *
             (1 - full_share);
  }
  if (full_share > 0) flops += CausalAttentionFlops(c, tokens, "full", group) * full_share;
  return flops + extra_keys * AttentionQueryFlops(c) * static_cast<double>(tokens) *
                     (1 + full_share * others);
}

// Bytes a token and layer that a ring moves beside attention: sums in fp32 that are rounded at the
// end, copies of keys and values; for each other rank a part that is written, and merged with or
// added to the sums.
double RingBytes(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  const int64_t others = s.context_parallel.value_or(1) - 1;
  if (others == 0) return 0;
  const auto q = static_cast<double>(c.num_attention_heads * c.head_dim),
             kv = static_cast<double>(c.num_key_value_heads * c.head_dim),
             n = static_cast<double>(others);
  const double forward = 8 * q + 8 * kv + 16 * q * n,
               backward = 8 * q + 20 * kv + 16 * (q + kv) * n;
  return FullAttentionShare(s) * (forward * (recompute == "full" ? 2 : 1) + backward);
}

// Bytes of dropout in front of the adapters: of each input a copy with zeros, forward and again
// backward, and zeros in its gradient. bf16.
double DropoutBytes(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  if (s.lora_dropout.value_or(0) == 0) return 0;
  const auto h = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size),
             q = static_cast<double>(c.num_attention_heads * c.head_dim);
  // Projections share a mask where they share an input.
  const double qkv = Adapts(s, "q_proj") || Adapts(s, "k_proj") || Adapts(s, "v_proj") ? h : 0;
  const double o = Adapts(s, "o_proj") ? q : 0;
  const double gate_up = Adapts(s, "gate_proj") || Adapts(s, "up_proj") ? h : 0;
  const double down = Adapts(s, "down_proj") ? f : 0;
  double bytes = 3 * 4 * (qkv + o + gate_up + down);
  if (recompute == "full") bytes += 4 * (qkv + o + gate_up);
  if (recompute == "selective") bytes += 4 * gate_up;
  return bytes * static_cast<double>(c.num_hidden_layers);
}

RowWork WorkOf(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
               const DeviceRates& rates) {
  const auto n = static_cast<double>(RowTokens(c, s));
  const auto head = static_cast<double>(c.vocab_size * c.hidden_size);
  const auto body = static_cast<double>(LinearParameterCount(c));
  const auto layers = static_cast<double>(c.num_hidden_layers);
  const bool full_tuning = s.method == "full";
  const bool trained_head = full_tuning || (c.tie_word_embeddings && s.TrainsEmbedding());
  const double thin = 1 + OrElse(rates.lora_extra_ranks, kThinRanks) /
                              static_cast<double>(std::max<int64_t>(1, s.lora_rank.value_or(8)));
  const double base_products = (full_tuning ? 6 : 4) * body;
  const double others = (trained_head ? 6 : 4) * head + thin * LoraFlops(c, s, recompute);
  const double attention = AttentionFlops(c, s, rates.attention_extra_keys);

  const bool fp32 = s.precision.value_or("auto") == "fp32";
  const double gemm_rate = fp32 ? OrElse(rates.gemm_fp32, rates.gemm / kSlowerInFp32) : rates.gemm;
  const double attention_rate =
      fp32 ? OrElse(rates.attention_fp32, rates.attention / kSlowerInFp32) : rates.attention;
  const bool fp8 = s.Base() == BaseFormat::kFp8, multiplies_fp8 = fp8 && rates.gemm_fp8 > 0;
  const double base_rate = multiplies_fp8 ? rates.gemm_fp8 : gemm_rate;
  RowWork work;
  work.gemm = n * (base_products / base_rate + others / gemm_rate);
  work.attention = 3.5 * attention / attention_rate;
  work.recompute = n * (RecomputedProducts(c, recompute) / base_rate +
                        thin * RecomputedLora(c, s, recompute) / gemm_rate) +
                   (recompute == "full" ? attention / attention_rate : 0);
  const double elementwise =
      ElementwiseBytes(c, s, recompute) * layers + DropoutBytes(c, s, recompute);
  work.elementwise = (fp32 ? 2 : 1) * n * elementwise /
                         OrElse(rates.elementwise_bandwidth, rates.memory_bandwidth) +
                     n * layers * RingBytes(c, s, recompute) /
                         OrElse(rates.elementwise_bandwidth, rates.memory_bandwidth) +
                     n * LossBytes(c) / OrElse(rates.loss_bandwidth, rates.memory_bandwidth);
  if (trained_head) {
    // The head's gradient is added to its sum chunk by chunk of logits.
    const double chunks = std::ceil(n / static_cast<double>(LossChunkTokens(c, fp32 ? 4 : 2)));
    work.elementwise += chunks * kHeadSumBytes * head / rates.memory_bandwidth;
  }
  if (s.Base() == BaseFormat::kNf4) {
    work.expansion = layers * kExpansionBytes *
                     ExpandedElements(c, s, recompute, rates.shares_cores && !fp32) /
                     OrElse(rates.expansion_bandwidth, rates.memory_bandwidth);
  }
  if (fp8) {
    const Fp8Bytes bytes = ConversionBytes(c, recompute, multiplies_fp8);
    const double bandwidth = OrElse(rates.elementwise_bandwidth, rates.memory_bandwidth);
    work.elementwise += n * layers * bytes.token / bandwidth;
    work.expansion = layers * bytes.weights / bandwidth;
  }
  return work;
}

// On the wire.
double BytesAWeight(BaseFormat base) {
  switch (base) {
    case BaseFormat::kNf4:
      return 0.516;
    case BaseFormat::kFp8:
      return 1;
    case BaseFormat::kCompute:
      break;
  }
  return 2;
}

// A collective over `ranks` devices moves at the slowest link in its way.
double LinkOf(const DeviceRates& rates, const Links& links, int64_t ranks) {
  return ranks <= links.per_host ? rates.link_bandwidth
                                 : std::min(rates.link_bandwidth, rates.network_bandwidth);
}

double CommunicationSeconds(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
                            const DeviceRates& rates, const Links& links, double rows,
                            double row_seconds) {
  const int64_t ranks = *s.gpus, context = s.context_parallel.value_or(1);
  if (ranks <= 1) return 0;
  const double link = LinkOf(rates, links, ranks);
  const double others = static_cast<double>(ranks - 1) / static_cast<double>(ranks);
  // fp32 gradients: an all-reduce is a reduce-scatter and an all-gather. With ZeRO the second half
  // carries the updated weights instead (stage 2), or is followed by them (stage 1).
  const double trained = 4.0 * static_cast<double>(TrainableParameterCount(c, s));
  const int64_t zero = s.zero_stage.value_or(0);
  double seconds = others * trained * (zero == 1 ? 3 : 2) / link;
  if (s.shard_base.value_or(false)) {
    // Gathered for forward and for backward, one layer ahead of the computing.
    const double bytes =
        static_cast<double>(LinearParameterCount(c)) * BytesAWeight(s.Base()) * 2 * others;
    seconds += rows * std::max(0.0, bytes / link - row_seconds);
  }
  if (context > 1 && *s.attention != "full") {
    // S²-Attn: keys and values of half a group of half the heads, one way in the forward pass and
    // when it is computed again, their gradients back. Taken as if none of it hid.
    const double kv = static_cast<double>(c.num_key_value_heads * c.head_dim) *
                      static_cast<double>(S2GroupTokens(c, s)) / 2;
    const double bytes = 2 * kv * 3 * static_cast<double>(c.num_hidden_layers);
    seconds += rows * bytes / LinkOf(rates, links, context);
  }
  const double full_share = FullAttentionShare(s);
  if (context > 1 && full_share > 0) {
    // A ring: keys and values of every other shard in each layer travel beside the attention of the
    // block at hand. Their gradients in fp32 follow them home, when each block is done.
    const double kv = 2.0 * static_cast<double>(c.num_key_value_heads * c.head_dim) *
                      static_cast<double>(ShardTokens(c, s) * c.num_hidden_layers);
    const double others = static_cast<double>(context - 1), passes = recompute == "full" ? 3 : 2,
                 beside = 2 * passes * kv * others / LinkOf(rates, links, context),
                 after = 4 * kv * static_cast<double>(context) / LinkOf(rates, links, context);
    seconds += full_share * rows *
               (after + (rates.shares_cores ? beside : std::max(0.0, beside - row_seconds)));
  }
  return seconds;
}

// How far the slowest of n is behind their mean, in units of what the slower of two is: of normally
// distributed times the expected maximum, the integral of 1 - P(x)^n - P(-x)^n over positive x.
double WaitOfRanks(int64_t ranks) {
  if (ranks < 2) return 0;
  constexpr double kStep = 0.1;
  constexpr int kSteps = 64;
  const double of_two = 1 / std::sqrt(M_PI);
  double sum = 0;
  for (int i = 0; i < kSteps; ++i) {
    const double above = std::erfc((i + 0.5) * kStep / M_SQRT2) / 2;
    sum += 1 - std::pow(1 - above, ranks) - std::pow(above, ranks);
  }
  return sum * kStep / of_two;
}

double OptimizerSeconds(const LlamaConfig& c, const JobSpec& s, const DeviceRates& rates) {
  const double share = s.zero_stage.value_or(0) > 0 ? static_cast<double>(*s.gpus) : 1;
  return kOptimizerBytes * static_cast<double>(TrainableParameterCount(c, s)) / share /
         OrElse(rates.optimizer_bandwidth, rates.memory_bandwidth);
}

// The layers' inputs leave for host memory in the forward pass and come back in the backward pass.
double OffloadSeconds(const LlamaConfig& c, const JobSpec& s, const DeviceRates& rates,
                      double row_seconds) {
  const double bytes = 2.0 * static_cast<double>(LayerInputBytes(c, s, /*gpu=*/true));
  return std::max(0.0, bytes / rates.host_bandwidth - row_seconds) + kOffloadShare * row_seconds;
}

}  // namespace

double ElementwiseBytes(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  const auto h = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size);
  const auto rotated =
      static_cast<double>((c.num_attention_heads + c.num_key_value_heads) * c.head_dim);
  const double head_norms = c.HasQkNorm() ? rotated : 0;
  // Elements read and written. A norm: x and y. SwiGLU: gate, up and their product.
  const double norm = 2 * h, rotation = 2 * rotated, swiglu = 3 * f;
  const double forward = 2 * norm + rotation + 2 * head_norms + swiglu;
  // A norm's gradient reads two tensors and adds to a third, SwiGLU's overwrites gate and up.
  double backward = 2 * 4 * h + rotation + 3 * head_norms + 5 * f;
  // Inputs of products whose weights are trained are made anew.
  const auto trains = [&](std::initializer_list<const char*> modules) {
    return s.method == "full" ||
           std::any_of(modules.begin(), modules.end(), [&](const char* m) { return Adapts(s, m); });
  };
  if (trains({"q_proj", "k_proj", "v_proj"})) backward += norm;
  if (trains({"gate_proj", "up_proj"}) && recompute == "none") backward += norm;
  if (trains({"down_proj"})) backward += swiglu;
  double again = 0;
  if (recompute == "full") again = 2 * norm + rotation + 2 * head_norms;
  if (recompute == "selective") again = norm;
  return 2 * (forward + backward + again);
}

double LossBytes(const LlamaConfig& c) { return 2 * 2 * static_cast<double>(c.vocab_size); }

double ExpandedElements(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
                        bool transposes) {
  const std::vector<Stacked> projections = Projections(c, s);
  double elements = 0;
  for (size_t i = 0; i < projections.size(); ++i) {
    const bool again = (recompute == "full" && i < 3) || (recompute == "selective" && i == 2),
               twice = again && transposes && ReadsTransposed(projections[i], s, /*element=*/2);
    elements += static_cast<double>(projections[i].in * projections[i].out) * (twice ? 3 : 2);
  }
  return elements;
}

Fp8Bytes ConversionBytes(const LlamaConfig& c, const std::string& recompute, bool multiplies) {
  const auto h = static_cast<double>(c.hidden_size), f = static_cast<double>(c.intermediate_size);
  const auto q = static_cast<double>(c.num_attention_heads * c.head_dim),
             kv = static_cast<double>(c.num_key_value_heads * c.head_dim);
  // Features that are multiplied: forward those in, backward those out of each projection.
  const double forward = h + q + h + f, backward = q + 2 * kv + h + 2 * f + h;
  const double weights = static_cast<double>(LinearParameterCount(c) / c.num_hidden_layers);
  double features = forward + backward, sums = 2 * h;
  if (recompute == "full") {
    features += forward - f;
    sums += h;
  } else if (recompute == "selective") {
    features += h;
  }
  // To codes and, where these are not multiplied, back to bf16. A product of codes cannot add: its
  // sum with the residual stream is an operation of its own; and the backward pass wants codes
  // transposed.
  return multiplies ? Fp8Bytes{3 * features + 6 * sums, 2 * weights}
                    : Fp8Bytes{6 * features, 3 * 2 * weights};
}

double LoraFlops(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  int64_t products = 0;
  for (const Linear& l : Linears(c)) {
    if (!Adapts(s, l.name)) continue;
    // Where layers are computed again, down's is not: what A makes of its input is made anew.
    const bool anew = recompute != "none" && absl::string_view(l.name) == "down_proj";
    products += (anew ? 4 : 3) * l.in + 3 * l.out;
  }
  return 2 * static_cast<double>(s.lora_rank.value_or(0) * c.num_hidden_layers * products);
}

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

double AttentionQueryFlops(const LlamaConfig& c) {
  return 4.0 * static_cast<double>(c.head_dim * c.num_attention_heads * c.num_hidden_layers);
}

double CausalAttentionFlops(const LlamaConfig& c, int64_t tokens, const std::string& kind,
                            int64_t group_tokens) {
  return AttentionFlopsOfShards(c, tokens, kind, group_tokens, 1)[0];
}

StepForecast ForecastStep(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
                          const DeviceRates& rates, const Links& links) {
  if (rates.gemm <= 0 || rates.attention <= 0 || s.kind.value_or("train") != "train") return {};
  const RowWork row = WorkOf(c, s, recompute, rates);
  const auto context = static_cast<double>(s.context_parallel.value_or(1));
  const double ranks = static_cast<double>(*s.gpus) / context;
  const double rows = std::ceil(static_cast<double>(*s.global_batch_size) / ranks);
  StepForecast step;
  // Ranks that share a row: S²-Attn's transfer hides behind the local heads, so that work counts.
  step.gemm = rows * row.gemm / context;
  step.attention = rows * row.attention / context;
  step.recompute = rows * row.recompute / context;
  // Every rank expands all weights, but works on its own tokens.
  step.memory_traffic = rows * (row.elementwise / context + row.expansion);
  const double computing =
      (step.gemm + step.attention + step.recompute + step.memory_traffic) / rows;
  step.communication = CommunicationSeconds(c, s, recompute, rates, links, rows, computing);
  if (rates.rank_wait > 0)
    step.communication += rows * computing * rates.rank_wait * WaitOfRanks(*s.gpus);
  step.optimizer = OptimizerSeconds(c, s, rates);
  if (s.activation_offload.value_or(false))
    step.offload = rows * OffloadSeconds(c, s, rates, computing);
  return step;
}

TimeForecast ForecastTime(const LlamaConfig& c, const JobSpec& s, const std::string& recompute,
                          const DeviceRates& rates, const Links& links) {
  TimeForecast out;
  out.step = ForecastStep(c, s, recompute, rates, links);
  out.step_seconds = out.step.total();
  if (out.step_seconds <= 0) return out;
  out.tokens_per_second =
      static_cast<double>(*s.global_batch_size * RowTokens(c, s)) / out.step_seconds;
  // Epochs become steps when the data is read.
  out.duration_seconds = out.step_seconds * static_cast<double>(s.max_steps.value_or(0));
  return out;
}

}  // namespace ll
