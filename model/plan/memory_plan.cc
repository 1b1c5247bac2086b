#include "model/plan/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/format.h"
#include "model/plan/gpu_attention.h"

namespace ll {
namespace {

// What the process holds before a model is there: libraries and, on a GPU, its context and
// communication buffers. The CPU's were measured (plan_matrix.py), the GPU's is an estimate. On a
// CPU: libraries, Gloo where there are several ranks, and the code that oneDNN makes for the shapes
// of the MLP's adapters.
constexpr int64_t kRuntimeBytesCpu = 168'000'000, kGlooBytes = 2'000'000, kMlpCodeBytes = 7'000'000;
// Any data has a row of another length, its last; oneDNN makes its bf16 code anew for it (fp32's is
// made for all lengths): where every weight trains, for the adapters, for those of the MLP.
constexpr int64_t kOtherLengthBytes = 3'000'000, kOtherLengthLoraBytes = 15'000'000,
                  kOtherLengthMlpBytes = 4'500'000;
constexpr int64_t kRuntimeBytesGpu = 2'500'000'000;
// What the C library's allocator holds beyond the buffers of a pass, measured likewise.
constexpr double kAllocatorShare = 0.012;
// Share of a device left alone for fragmentation and for what other processes take.
constexpr double kReserve = 0.04;
// Bytes of logits in flight; the head works through the tokens in chunks (model/llama_head.cc).
constexpr int64_t kHeadBytes = 96 << 20, kHeadBytesUntrained = 384 << 20;
// 4.127 bits a weight: NF4 in blocks of 64 with doubly quantised absmax (QLoRA).
constexpr double kNf4Bytes = 4.127 / 8;
// Gradients that are summed at a time (worker/trainer/optim).
constexpr int64_t kBucketElements = 4 << 20;
// Threads of a CPU rank that each hold attention scratch.
constexpr int64_t kAttentionThreads = 2;

// Projections as they are stored and computed: q, k, v are one, and so are gate and up.
struct Stacked {
  int64_t in = 0, out = 0;
  int64_t adapted = 0;  // of its parts
};

std::vector<Stacked> Projections(const LlamaConfig& c, const JobSpec& s) {
  const std::vector<Linear> l = Linears(c);
  const auto has = [&](int i) {
    return static_cast<int64_t>(
        std::count(s.target_modules.begin(), s.target_modules.end(), std::string(l[i].name)));
  };
  return {{l[0].in, l[0].out + l[1].out + l[2].out, has(0) + has(1) + has(2)},
          {l[3].in, l[3].out, has(3)},
          {l[4].in, l[4].out + l[5].out, has(4) + has(5)},
          {l[6].in, l[6].out, has(6)}};
}

// Bytes of an element of a frozen weight with rows of `in` elements, whose type takes `element`.
double BaseBytes(const JobSpec& s, int64_t in, int64_t element) {
  switch (s.Base()) {
    case BaseFormat::kNf4:
      return kNf4Bytes;
    case BaseFormat::kFp8:
      return 1 + 4.0 / static_cast<double>(in);  // a scale a row
    case BaseFormat::kCompute:
      break;
  }
  return static_cast<double>(element);
}

// Of the linear weights of one layer.
double LayerBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  double bytes = 0;
  for (const Linear& l : Linears(c))
    bytes += static_cast<double>(l.in * l.out) * BaseBytes(s, l.in, element);
  return bytes;
}

bool Trains(const JobSpec& s) { return s.kind.value_or("train") == "train"; }
bool IsFull(const JobSpec& s) { return s.method == "full"; }
int64_t QueryWidth(const LlamaConfig& c) { return c.num_attention_heads * c.head_dim; }
int64_t KvWidth(const LlamaConfig& c) { return c.num_key_value_heads * c.head_dim; }
int64_t ContextRanks(const JobSpec& s) { return s.context_parallel.value_or(1); }
int64_t Ranks(const JobSpec& s) { return std::max(s.gpus.value_or(1), ContextRanks(s)); }

bool UsesRing(const JobSpec& s) {
  return ContextRanks(s) > 1 &&
         (s.attention.value_or("s2") == "full" || s.FullAttentionSteps() > 0);
}

int64_t GroupTokens(const LlamaConfig& c, const JobSpec& s) {
  const int64_t tokens = RowTokens(c, s);
  if (s.attention.value_or("s2") == "full" || s.FullAttentionSteps() > 0) return tokens;
  return std::max<int64_t>(
      1, static_cast<int64_t>(s.group_ratio.value_or(0.25) * static_cast<double>(tokens)));
}

// ---- weights

int64_t WeightBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t linear = LinearParameterCount(c);
  const int64_t tables = c.vocab_size * c.hidden_size * (c.tie_word_embeddings ? 1 : 2) * element;
  const int64_t norms = (c.ParameterCount() - linear - tables / element) * 4;  // kept in fp32
  double held = LayerBytes(c, s, element) * static_cast<double>(c.num_hidden_layers);
  // A share of every layer; the two whole ones are in CommunicationBytes (model/sharded_base.h).
  if (s.shard_base.value_or(false)) held /= static_cast<double>(Ranks(s));
  return static_cast<int64_t>(held) + tables + norms;
}

// The files that the weights are copied from are mapped until the model is made: they count only
// where what comes later needs less.
int64_t MappedFileBytes(const LlamaConfig& c, const JobSpec& s) {
  if (s.model_config) return 0;
  const int64_t element = c.dtype == "float32" ? 4 : 2, linear = LinearParameterCount(c);
  const int64_t rest = (c.ParameterCount() - linear) * element;
  return rest + (c.quantized ? static_cast<int64_t>(static_cast<double>(linear) * kNf4Bytes)
                             : linear * element);
}

// ---- what trains

// With ZeRO a rank owns one part of what trains, and holds masters and moments of that alone.
int64_t OwnedCount(const LlamaConfig& c, const JobSpec& s) {
  const int64_t all = TrainableParameterCount(c, s);
  if (s.zero_stage.value_or(0) == 0) return all;
  return (all + Ranks(s) - 1) / Ranks(s);
}

// fp32. In ZeRO stage 2 a gradient goes when its bucket has been summed, in the last row's backward
// pass: it counts whole where a rank runs several rows, and where it is the embedding's, which is
// complete at the very end.
int64_t GradientBytes(const LlamaConfig& c, const JobSpec& s) {
  const int64_t all = TrainableParameterCount(c, s);
  const int64_t data_ranks = std::max<int64_t>(1, Ranks(s) / ContextRanks(s));
  const bool one_row = s.global_batch_size.value_or(data_ranks + 1) <= data_ranks;
  if (s.zero_stage.value_or(0) < 2 || Ranks(s) == 1 || !one_row) return 4 * all;
  const bool embedding = IsFull(s) || s.TrainsEmbedding();
  return 4 * std::min(all, OwnedCount(c, s) + kBucketElements +
                               (embedding ? c.vocab_size * c.hidden_size : 0));
}

// Masters where they are not the compute weights themselves (norms are fp32, and all with precision
// fp32), and LoRA's compute copies, which are not counted among the weights.
int64_t MasterBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t lora = LoraParameterCount(c, s), copies = element == 4 ? 0 : lora * element;
  if (s.zero_stage.value_or(0) > 0 && Ranks(s) > 1) return 4 * OwnedCount(c, s) + copies;
  int64_t norms = s.TrainsNorm() ? (2 * c.num_hidden_layers + 1) * c.hidden_size : 0;
  if (s.TrainsNorm() && c.HasQkNorm()) norms += 2 * c.num_hidden_layers * c.head_dim;
  const int64_t wide = TrainableParameterCount(c, s) - lora - norms;
  return (element == 4 ? 0 : 4) * wide + 4 * lora + copies;
}

// AdamW's two moments, fp32.
int64_t OptimizerBytes(const LlamaConfig& c, const JobSpec& s) { return 8 * OwnedCount(c, s); }

// ---- activations

// Elements a token and layer keeps.
int64_t SavedElements(const LlamaConfig& c, const std::string& recompute) {
  const int64_t q = QueryWidth(c), kv = KvWidth(c);
  if (recompute == "full") return c.hidden_size;
  int64_t lean = 2 * c.hidden_size + 2 * q + 2 * kv;  // h1, q, O, h2, k, v
  if (c.HasQkNorm()) lean += q + kv;                  // q and k before their norms
  return recompute == "selective" ? lean : lean + 2 * c.intermediate_size;
}

// fp32 numbers a token and layer keeps: attention's log-sum-exp and what the norms divided by.
int64_t SavedStatistics(const LlamaConfig& c) {
  return c.num_attention_heads + 2 +
         (c.HasQkNorm() ? c.num_attention_heads + c.num_key_value_heads : 0);
}

int64_t ActivationBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                        const std::string& recompute) {
  int64_t bytes = SavedElements(c, recompute) * element;
  if (recompute != "full") bytes += SavedStatistics(c) * 4;
  bytes *= ShardTokens(c, s) * c.num_hidden_layers;
  // Offloaded, three layers' inputs are on the device at a time.
  if (gpu && s.activation_offload.value_or(false)) {
    bytes -= LayerInputBytes(c, s, gpu) / c.num_hidden_layers *
             std::max<int64_t>(0, c.num_hidden_layers - 3);
  }
  return bytes;
}

// ---- one layer at a time

// Weights as products read them: expanded from NF4 or, on a device without products of it, from
// fp8, whose codes others transpose; and transposed for the backward pass on a CPU; of the
// projections that open them in the first place (q, k, v; gate and up), and in the second
// (model/projection.h).
int64_t WeightBufferBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu) {
  const BaseFormat base = s.Base();
  int64_t expanded[2] = {0, 0}, transposed[2] = {0, 0};
  const std::vector<Stacked> projections = Projections(c, s);
  for (size_t i = 0; i < projections.size(); ++i) {
    const Stacked& p = projections[i];
    const bool wide =
        base != BaseFormat::kFp8 && !gpu && element == 2 && p.out > p.in && p.in % 64 == 0;
    if (base != BaseFormat::kCompute) expanded[i % 2] = std::max(expanded[i % 2], p.in * p.out);
    if (wide) transposed[i % 2] = std::max(transposed[i % 2], p.in * p.out);
  }
  return (expanded[0] + expanded[1] + transposed[0] + transposed[1]) * element;
}

// Tokens of a tile; what lies between operations that work token by token is held for so many.
int64_t TileTokens(const LlamaConfig& c, const JobSpec& s) {
  return std::min(ShardTokens(c, s), kTileTokens);
}

// What the adapters of one projection need for a token at a time: its input after dropout, and the
// low-rank products of forward and backward.
int64_t LoraScratchElements(const LlamaConfig& c, const JobSpec& s) {
  if (IsFull(s)) return 0;
  int64_t input = 0, rank = 0;
  for (const Stacked& p : Projections(c, s)) {
    if (p.adapted == 0) continue;
    input = std::max(input, p.in);
    rank = std::max(rank, p.adapted * s.lora_rank.value_or(0));
  }
  return (s.lora_dropout.value_or(0) > 0 ? input : 0) + 2 * rank;
}

// What an fp8 base's products need for a token at a time: the codes of what is multiplied (of
// features in, or out in the backward pass) and their values in bf16. Where codes are multiplied
// less is needed, here and of weights: of a 7B's 8,192 tokens or more 0.4 GB (a plan is made for
// either, and must hold for both).
int64_t Fp8ScratchBytes(const LlamaConfig& c, const JobSpec& s) {
  if (s.Base() != BaseFormat::kFp8) return 0;
  int64_t features = 0;
  for (const Stacked& p : Projections(c, s)) features = std::max({features, p.in, p.out});
  return 3 * features;
}

// Of the largest backward call: all groups of the heads that attend alike, some heads at a time
// (model/attention_cuda.cc).
int64_t GpuScratchBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t tokens = ShardTokens(c, s), group = std::min(GroupTokens(c, s), tokens);
  const bool halves = s.attention.value_or("s2") == "s2" && GroupTokens(c, s) < RowTokens(c, s);
  const auto part = [halves](int64_t heads) { return halves ? (heads + 1) / 2 : heads; };
  GpuAttentionShape call{.batch = (tokens + group - 1) / group,
                         .kv_heads = part(c.num_key_value_heads),
                         .queries = group,
                         .keys = group,
                         .head_dim = c.head_dim,
                         .deterministic = s.deterministic.value_or(true)};
  const int64_t shared = c.num_attention_heads / c.num_key_value_heads;
  call.heads = call.kv_heads * shared;
  call.heads = GpuAttentionHeads(call);
  call.kv_heads = call.heads / shared;
  return GpuAttentionScratchBytes(call) * element / 2;
}

// On a CPU: a thread's copy of one KV head's keys and values in the layout of the matrix unit and
// the fp32 sums of their gradients (kernels/flash_attention).
int64_t AttentionScratchBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu) {
  if (gpu) return Trains(s) ? GpuScratchBytes(c, s, element) : 0;
  return kAttentionThreads * GroupTokens(c, s) * c.head_dim * (3 * element + 2 * 4);
}

// Of a CPU's process, beside the buffers of the model: while the weights are read, their files.
int64_t CpuRuntimeBytes(const LlamaConfig& c, const JobSpec& s, const MemoryForecast& m,
                        int64_t moments) {
  const int64_t pass = m.activations + m.workspace + m.head;
  int64_t bytes = kRuntimeBytesCpu + (Ranks(s) > 1 ? kGlooBytes : 0) +
                  static_cast<int64_t>(kAllocatorShare * static_cast<double>(pass));
  const bool adapts_mlp = Projections(c, s)[2].adapted > 0;
  if (adapts_mlp) bytes += kMlpCodeBytes;
  if (ElementBytes(s, /*gpu=*/false) == 2) {
    bytes += kOtherLengthBytes + (LoraParameterCount(c, s) > 0 ? kOtherLengthLoraBytes : 0) +
             (adapts_mlp ? kOtherLengthMlpBytes : 0);
  }
  const int64_t later = moments + pass + m.communication + m.snapshot;
  return bytes + std::max<int64_t>(0, MappedFileBytes(c, s) - later);
}

int64_t WorkspaceBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                       const std::string& recompute) {
  const int64_t q = QueryWidth(c), kv = KvWidth(c), tokens = ShardTokens(c, s);
  // Of the whole row: the gradients of the residual stream, of q, k and v, and of attention's
  // output where x_mid has no room for it; what of a layer is computed again
  // (model/activations.h).
  int64_t elements = c.hidden_size + q + 2 * kv + (q == c.hidden_size ? 0 : q);
  if (recompute == "full") elements += SavedElements(c, "selective") - SavedElements(c, "full");
  if (s.wrap.value_or("split") == "roll") elements += 3 * q + 2 * (q + 2 * kv);
  const int64_t statistics = recompute == "full" ? SavedStatistics(c) * 4 : 0;
  // Of a tile: a norm's output and its gradient, gate and up where they are computed again, their
  // product and its gradient.
  const int64_t tile = 2 * c.hidden_size + (recompute == "none" ? 2 : 4) * c.intermediate_size +
                       LoraScratchElements(c, s);
  const int64_t rope = RowTokens(c, s) * c.head_dim * 4;  // cos and sin, D / 2 each
  return tokens * (elements * element + statistics) +
         TileTokens(c, s) * (tile * element + Fp8ScratchBytes(c, s)) + rope +
         WeightBufferBytes(c, s, element, gpu) + AttentionScratchBytes(c, s, element, gpu);
}

int64_t HeadBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t tokens = ShardTokens(c, s);
  const int64_t row = (c.vocab_size + c.hidden_size) * element;  // logits, and the norm's input
  const int64_t chunk = std::min(tokens, LossChunkTokens(c, element));
  const bool trained = IsFull(s) || (c.tie_word_embeddings && s.TrainsEmbedding());
  const int64_t gradient = trained && element == 2 ? c.vocab_size * c.hidden_size * element : 0;
  // Tokens, labels (int64), the norm's divisors and the loss (fp32).
  return chunk * row + gradient + tokens * (8 + 8 + 4 + 4);
}

// ---- what ranks exchange

// The buffers of a ring of full attention (RingBuffers in model/ring_attention.h).
int64_t RingBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  if (!UsesRing(s)) return 0;
  const int64_t kv = 2 * KvWidth(c), gradients = Trains(s) ? 4 : 0;
  return ShardTokens(c, s) *
         (2 * kv * (element + gradients) + 4 * (2 * QueryWidth(c) + c.num_attention_heads));
}

// Elements of keys and values that a rank receives and keeps in a layer of S²-Attn: half the heads
// of half a group (model/cp_exchange.h), at most of what lies in front of its shard.
int64_t ReceivedElements(const LlamaConfig& c, const JobSpec& s) {
  if (ContextRanks(s) == 1 || s.attention.value_or("s2") == "full") return 0;
  const int64_t heads =
      s.attention == "short" ? c.num_key_value_heads : (c.num_key_value_heads + 1) / 2;
  return 2 * heads * c.head_dim * std::max<int64_t>(1, GroupTokens(c, s) / 2);
}

// Expected of random tokens, which text repeats more than.
int64_t DistinctTokens(int64_t vocabulary, int64_t tokens) {
  const auto words = static_cast<double>(vocabulary);
  return static_cast<int64_t>(words * -std::expm1(-static_cast<double>(tokens) / words));
}

// Of the sum of gradients over ranks, after the pass: a bucket (worker/trainer/optim); or of an
// embedding that is no head too, whose rows are sums of the tokens' (worker/trainer/comm/row_sums),
// this rank's part of the sum, and its and the others' rows on their way. fp32.
int64_t GradientSumBytes(const LlamaConfig& c, const JobSpec& s) {
  if (Ranks(s) == 1) return 0;
  int64_t others = TrainableParameterCount(c, s), rows = 0;
  if (!c.tie_word_embeddings && (IsFull(s) || s.TrainsEmbedding())) {
    others -= c.vocab_size * c.hidden_size;
    rows = (c.vocab_size / Ranks(s) + 2 * DistinctTokens(c.vocab_size, ShardTokens(c, s))) *
           c.hidden_size * 4;
  }
  return std::max(4 * std::min(kBucketElements, others), rows);
}

// Of parts that ranks wrote, rank 0 makes the adapter: their masters as read, and in one piece.
int64_t AdapterOfPartsBytes(const LlamaConfig& c, const JobSpec& s) {
  if (s.zero_stage.value_or(0) == 0 || Ranks(s) == 1 || IsFull(s)) return 0;
  return 2 * 4 * TrainableParameterCount(c, s);
}

// A checkpoint before the last one copies masters and moments, and with method full the weights,
// and is written beside the next step. The last one finds room where gradients were, and half of
// what their sum took, the rest of which the C library's allocator keeps in small pieces.
int64_t SnapshotBytes(const LlamaConfig& c, const JobSpec& s, bool gpu) {
  if (gpu) return 0;
  const int64_t every = s.save_steps.value_or(0), adapter = AdapterOfPartsBytes(c, s);
  if (every != 0 && (!s.max_steps || every < *s.max_steps)) {
    return 12 * OwnedCount(c, s) + (IsFull(s) ? 2 * TrainableParameterCount(c, s) : 0) + adapter;
  }
  int64_t room = GradientSumBytes(c, s) / 2;
  if (s.zero_stage == 2) room += GradientBytes(c, s) - 4 * OwnedCount(c, s);
  return std::max<int64_t>(0, adapter - room);
}

int64_t CommunicationBytes(const LlamaConfig& c, const JobSpec& s, int64_t element,
                           const std::string& recompute) {
  int64_t bytes = RingBytes(c, s, element) + GradientSumBytes(c, s);
  bytes += ReceivedElements(c, s) * element * (recompute == "full" ? 1 : c.num_hidden_layers);
  // A gathered layer, and the next one on its way.
  if (s.shard_base.value_or(false) && Ranks(s) > 1) {
    bytes += static_cast<int64_t>(2 * LayerBytes(c, s, element));
  }
  return bytes;
}

}  // namespace

int64_t LayerInputBytes(const LlamaConfig& c, const JobSpec& s, bool gpu) {
  return ShardTokens(c, s) * c.num_hidden_layers * c.hidden_size * ElementBytes(s, gpu);
}

int64_t LinearParameterCount(const LlamaConfig& c) {
  int64_t count = 0;
  for (const Linear& l : Linears(c)) count += l.in * l.out * c.num_hidden_layers;
  return count;
}

std::vector<Linear> Linears(const LlamaConfig& c) {
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  return {{"q_proj", d, q},    {"k_proj", d, kv}, {"v_proj", d, kv},  {"o_proj", q, d},
          {"gate_proj", d, f}, {"up_proj", d, f}, {"down_proj", f, d}};
}

int64_t LossChunkTokens(const LlamaConfig& c, int64_t element) {
  return std::min(kTileTokens,
                  std::max<int64_t>(64, kHeadBytes / (c.vocab_size * element) / 64 * 64));
}

bool Adapts(const JobSpec& s, const char* module) {
  return !IsFull(s) && std::find(s.target_modules.begin(), s.target_modules.end(), module) !=
                           s.target_modules.end();
}

int64_t RowTokens(const LlamaConfig& c, const JobSpec& s) {
  if (!Trains(s)) return s.eval_seq_len.value_or(c.max_position_embeddings);
  return s.max_seq_length.value_or(s.context_length.value_or(c.max_position_embeddings));
}

int64_t ShardTokens(const LlamaConfig& c, const JobSpec& s) {
  return (RowTokens(c, s) + ContextRanks(s) - 1) / ContextRanks(s);
}

int64_t ElementBytes(const JobSpec& s, bool gpu) {
  const std::string precision = s.precision.value_or("auto");
  if (precision == "auto") return Trains(s) || gpu ? 2 : 4;
  return precision == "fp32" ? 4 : 2;
}

int64_t LoraParameterCount(const LlamaConfig& c, const JobSpec& s) {
  if (IsFull(s)) return 0;
  int64_t count = 0;
  for (const Linear& l : Linears(c)) {
    if (Adapts(s, l.name)) count += s.lora_rank.value_or(0) * (l.in + l.out) * c.num_hidden_layers;
  }
  return count;
}

int64_t TrainableParameterCount(const LlamaConfig& c, const JobSpec& s) {
  if (IsFull(s)) return c.ParameterCount();
  int64_t count = LoraParameterCount(c, s);
  if (s.TrainsEmbedding()) count += c.vocab_size * c.hidden_size;
  if (s.TrainsNorm()) {
    count += (2 * c.num_hidden_layers + 1) * c.hidden_size;
    if (c.HasQkNorm()) count += 2 * c.num_hidden_layers * c.head_dim;
  }
  return count;
}

std::vector<MemoryPart> MemoryParts(const MemoryForecast& m) {
  std::vector<MemoryPart> parts = {{"weights", m.weights},
                                   {"optimizer", m.trainables},
                                   {"activations", m.activations},
                                   {"one layer", m.workspace},
                                   {"logits", m.head},
                                   {"communication", m.communication},
                                   {"checkpoint copy", m.snapshot},
                                   {"runtime", m.runtime},
                                   {"measured excess", m.correction}};
  std::stable_sort(parts.begin(), parts.end(),
                   [](const MemoryPart& a, const MemoryPart& b) { return a.bytes > b.bytes; });
  return parts;
}

MemoryForecast ForecastMemory(const LlamaConfig& c, const JobSpec& s, bool gpu,
                              const std::string& recompute) {
  const int64_t element = ElementBytes(s, gpu), tokens = ShardTokens(c, s);
  MemoryForecast m;
  m.recompute = recompute;
  m.weights = WeightBytes(c, s, element);
  m.runtime = gpu ? kRuntimeBytesGpu : kRuntimeBytesCpu;
  if (!Trains(s)) {  // one layer's forward at a time, nothing kept
    m.workspace =
        (tokens * SavedElements(c, "selective") + TileTokens(c, s) * 2 * c.intermediate_size) *
        element;
    m.head = std::min(tokens * c.vocab_size * element, kHeadBytesUntrained);
    return m;
  }
  const int64_t moments = OptimizerBytes(c, s);
  m.trainables = GradientBytes(c, s) + MasterBytes(c, s, element) + moments;
  m.activations = ActivationBytes(c, s, element, gpu, recompute);
  m.workspace = WorkspaceBytes(c, s, element, gpu, recompute);
  m.head = HeadBytes(c, s, element);
  m.communication = CommunicationBytes(c, s, element, recompute);
  m.snapshot = SnapshotBytes(c, s, gpu);
  if (!gpu) m.runtime = CpuRuntimeBytes(c, s, m, moments);
  return m;
}

int64_t UsableBytes(const Device& device) {
  return static_cast<int64_t>(static_cast<double>(device.memory_bytes) * (1 - kReserve));
}

int64_t SlotBytesFor(int64_t bytes) {
  return static_cast<int64_t>(static_cast<double>(bytes) / (1 - kReserve)) + 1;
}

FitResult Fits(const LlamaConfig& c, const JobSpec& s, const Device& device) {
  FitResult out;
  out.available_bytes = UsableBytes(device);
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
  out.explanation = absl::StrCat(
      "a rank needs ", HumanBytes(out.needed_bytes), " (weights ", HumanBytes(m.weights),
      ", optimizer ", HumanBytes(m.trainables), ", activations ",
      HumanBytes(m.activations + m.workspace + m.head + m.communication), ", runtime ",
      HumanBytes(m.runtime + m.snapshot), ") with recompute ", m.recompute, "; one slot (",
      device.kind, ") offers ", HumanBytes(out.available_bytes));
  return out;
}

}  // namespace ll
