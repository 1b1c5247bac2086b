#include "model/plan/memory_plan.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/format.h"

namespace ll {
namespace {

// What the process holds before a model is there: libraries and, on a GPU, its context and
// communication buffers.
constexpr int64_t kRuntimeBytesCpu = 350'000'000;
constexpr int64_t kRuntimeBytesGpu = 2'500'000'000;
// Share of a device left alone for fragmentation and for what other processes take.
constexpr double kReserve = 0.04;
// Rows of logits in flight; the head works through the tokens in chunks of at most this.
constexpr int64_t kHeadChunkTokens = 512;
// Bytes of logits in flight where nothing is trained (model/llama_head.cc).
constexpr int64_t kHeadBytesUntrained = 384 << 20;
// 4.127 bits a weight: NF4 in blocks of 64 with doubly quantised absmax (QLoRA).
constexpr double kNf4Bytes = 4.127 / 8;
constexpr int64_t kMasterMomentsGradient = 4 * 4;

struct Linear {
  const char* name;
  int64_t in, out;
};

std::vector<Linear> Linears(const LlamaConfig& c) {
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  return {{"q_proj", d, q},    {"k_proj", d, kv}, {"v_proj", d, kv},  {"o_proj", q, d},
          {"gate_proj", d, f}, {"up_proj", d, f}, {"down_proj", f, d}};
}

bool Trains(const JobSpec& s) { return s.kind.value_or("train") == "train"; }

// Tokens of the longest row the job runs.
int64_t RowTokens(const LlamaConfig& c, const JobSpec& s) {
  if (!Trains(s)) return s.eval_seq_len.value_or(c.max_position_embeddings);
  return s.max_seq_length.value_or(s.context_length.value_or(c.max_position_embeddings));
}

int64_t ContextRanks(const JobSpec& s) { return s.context_parallel.value_or(1); }

// Tokens of a row that one rank holds.
int64_t ShardTokens(const LlamaConfig& c, const JobSpec& s) {
  return (RowTokens(c, s) + ContextRanks(s) - 1) / ContextRanks(s);
}

// Bytes of a ring of full attention (model/ring_attention.cc), of one layer at a time: two blocks
// of keys and values, two of their fp32 gradients, and fp32 sums of the queries'.
int64_t RingBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  if (ContextRanks(s) == 1) return 0;
  if (s.attention.value_or("s2") != "full" && s.FullAttentionSteps() == 0) return 0;
  const int64_t kv = c.num_key_value_heads * c.head_dim, q = c.num_attention_heads * c.head_dim;
  return ShardTokens(c, s) * (2 * 2 * kv * (element + 4) + q * (4 + element));
}

// Elements of keys and values that a rank receives and keeps in a layer of S²-Attn: half the heads
// of half a group (model/cp_exchange.h).
int64_t ReceivedElements(const LlamaConfig& c, const JobSpec& s) {
  if (ContextRanks(s) == 1) return 0;
  const int64_t kv = c.num_key_value_heads * c.head_dim, tokens = RowTokens(c, s);
  if (s.attention.value_or("s2") == "full") return 0;
  const auto group =
      static_cast<int64_t>(s.group_ratio.value_or(0.25) * static_cast<double>(tokens));
  return 2 * kv * group;  // an upper bound for every number of ranks
}

// Bytes of a weight or an activation: design's defaults for precision auto.
int64_t ElementBytes(const JobSpec& s, bool gpu) {
  const std::string precision = s.precision.value_or("auto");
  if (precision == "auto") return Trains(s) || gpu ? 2 : 4;
  return precision == "fp32" ? 4 : 2;
}

int64_t WeightBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  int64_t linear = 0;
  for (const Linear& l : Linears(c)) linear += l.in * l.out * c.num_hidden_layers;
  const int64_t rest = c.ParameterCount() - linear;
  if (s.QuantizesBase())
    return static_cast<int64_t>(static_cast<double>(linear) * kNf4Bytes) + rest * element;
  return (linear + rest) * element;
}

// One projection's weight (q, k, v are one, and so are gate and up) at a time: expanded from NF4,
// or transposed for the backward pass on a CPU (model/projection.h).
int64_t WeightBufferBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  const int64_t wide = c.hidden_size * std::max(q + 2 * kv, 2 * c.intermediate_size);
  if (s.QuantizesBase()) return wide * element;
  return !gpu && element == 2 ? wide * element : 0;
}

// Elements a token and layer keeps.
int64_t SavedElements(const LlamaConfig& c, const std::string& recompute) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  if (recompute == "full") return c.hidden_size;
  int64_t lean = 2 * c.hidden_size + 2 * q + 2 * kv;  // h1, q, O, h2, k, v
  if (c.HasQkNorm()) lean += q + kv;                  // q and k before their norms
  return recompute == "selective" ? lean : lean + 2 * c.intermediate_size;
}

// Elements a token that the adapters of one projection need at a time: its input after dropout, and
// the low-rank products of forward and backward.
int64_t LoraScratchElements(const LlamaConfig& c, const JobSpec& s) {
  if (s.method == "full" || s.target_modules.empty()) return 0;
  int64_t input = 0;
  for (const Linear& l : Linears(c)) {
    const bool adapted = std::find(s.target_modules.begin(), s.target_modules.end(), l.name) !=
                         s.target_modules.end();
    if (adapted) input = std::max(input, l.in);
  }
  return (s.lora_dropout.value_or(0) > 0 ? input : 0) + 2 * 3 * s.lora_rank.value_or(0);
}

JobSpec WithContext(const JobSpec& spec, int64_t tokens) {
  JobSpec out = spec;
  out.context_length = tokens;
  out.max_seq_length = tokens;
  out.eval_seq_len = tokens;
  return out;
}

int64_t LeanestTotal(const LlamaConfig& c, const JobSpec& s, bool gpu) {
  const std::string recompute = s.recompute.value_or("auto") == "auto" ? "full" : *s.recompute;
  return ForecastMemory(c, s, gpu, recompute).total();
}

// The longest multiple of 1024 tokens (below the job's) that fits; 0 where none does.
int64_t LongestContext(const LlamaConfig& c, const JobSpec& s, bool gpu, int64_t available) {
  int64_t low = 0, high = RowTokens(c, s) / 1024;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (LeanestTotal(c, WithContext(s, middle * 1024), gpu) <= available)
      low = middle;
    else
      high = middle - 1;
  }
  return low * 1024;
}

std::string Nearest(const LlamaConfig& c, const JobSpec& s, bool gpu, int64_t available) {
  const int64_t context = LongestContext(c, s, gpu, available);
  if (context >= c.OriginalContext())
    return absl::StrCat(Trains(s) ? "--ctx " : "eval_seq_len ", context, " fits on this device");
  return absl::StrCat("a device with at least ",
                      HumanBytes(static_cast<int64_t>(static_cast<double>(LeanestTotal(c, s, gpu)) /
                                                      (1 - kReserve))));
}

}  // namespace

int64_t LoraParameterCount(const LlamaConfig& c, const JobSpec& s) {
  int64_t count = 0;
  for (const Linear& l : Linears(c)) {
    if (std::find(s.target_modules.begin(), s.target_modules.end(), l.name) !=
        s.target_modules.end()) {
      count += s.lora_rank.value_or(0) * (l.in + l.out) * c.num_hidden_layers;
    }
  }
  return s.method == "full" ? 0 : count;
}

int64_t TrainableParameterCount(const LlamaConfig& c, const JobSpec& s) {
  if (s.method == "full") return c.ParameterCount();
  int64_t count = LoraParameterCount(c, s);
  if (s.TrainsEmbedding()) count += c.vocab_size * c.hidden_size;
  if (s.TrainsNorm()) {
    count += (2 * c.num_hidden_layers + 1) * c.hidden_size;
    if (c.HasQkNorm()) count += 2 * c.num_hidden_layers * c.head_dim;
  }
  return count;
}

MemoryForecast ForecastMemory(const LlamaConfig& c, const JobSpec& s, bool gpu,
                              const std::string& recompute) {
  const int64_t element = ElementBytes(s, gpu);
  const int64_t tokens = ShardTokens(c, s);
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  MemoryForecast m;
  m.recompute = recompute;
  m.weights = WeightBytes(c, s, element);
  m.head = std::min(tokens, kHeadChunkTokens) * c.vocab_size * (element + 4) +
           tokens * c.hidden_size * element;
  m.runtime = gpu ? kRuntimeBytesGpu : kRuntimeBytesCpu;
  if (!Trains(s)) {  // one layer's forward at a time, nothing kept
    m.workspace = tokens * SavedElements(c, "none") * element;
    m.head = std::min(tokens * c.vocab_size * element, kHeadBytesUntrained) +
             tokens * c.hidden_size * element;
    return m;
  }
  m.trainables =
      TrainableParameterCount(c, s) * kMasterMomentsGradient + LoraParameterCount(c, s) * element;
  m.activations = tokens * c.num_hidden_layers * SavedElements(c, recompute) * element;
  // Attention's log-sum-exp, fp32, is kept where attention is not computed again.
  m.activations +=
      ReceivedElements(c, s) * element * (recompute == "full" ? 1 : c.num_hidden_layers);
  if (recompute != "full")
    m.activations += tokens * c.num_hidden_layers * c.num_attention_heads * 4;
  // One layer's backward: the layer's own activations where they are recomputed, and the gradients
  // of the widest part.
  const int64_t recomputed = SavedElements(c, "none") - SavedElements(c, recompute);
  const int64_t gradients = std::max(3 * c.intermediate_size, 2 * q + 2 * kv) + 3 * c.hidden_size;
  m.workspace = tokens * (recomputed + gradients + LoraScratchElements(c, s)) * element +
                WeightBufferBytes(c, s, element, gpu) + RingBytes(c, s, element);
  return m;
}

FitResult Fits(const LlamaConfig& c, const JobSpec& s, const Device& device) {
  FitResult out;
  out.available_bytes =
      static_cast<int64_t>(static_cast<double>(device.memory_bytes) * (1 - kReserve));
  std::vector<std::string> choices = {"none", "selective", "full"};
  if (s.recompute.value_or("auto") != "auto") choices = {*s.recompute};
  MemoryForecast m;
  for (const std::string& recompute : choices) {
    m = ForecastMemory(c, s, device.IsGpu(), recompute);
    out.fits = m.total() <= out.available_bytes;
    if (out.fits) break;
  }
  out.needed_bytes = m.total();
  out.recompute = m.recompute;
  out.explanation =
      absl::StrCat("a rank needs ", HumanBytes(out.needed_bytes), " (weights ",
                   HumanBytes(m.weights), ", optimizer ", HumanBytes(m.trainables),
                   ", activations ", HumanBytes(m.activations + m.workspace + m.head), ", runtime ",
                   HumanBytes(m.runtime), ") with recompute ", m.recompute, "; one slot (",
                   device.kind, ") offers ", HumanBytes(out.available_bytes));
  if (!out.fits) out.nearest = Nearest(c, s, device.IsGpu(), out.available_bytes);
  return out;
}

}  // namespace ll
