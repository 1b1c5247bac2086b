#include <algorithm>

#include "model/plan/gpu_attention.h"
#include "model/plan/memory_parts.h"
#include "model/plan/memory_plan.h"

namespace ll {
namespace {

// Bytes of logits in flight; the head works through the tokens in chunks (model/llama_head.cc).
constexpr int64_t kHeadBytes = 96 << 20;
// Threads of a CPU rank that each hold attention scratch.
constexpr int64_t kAttentionThreads = 2;

// fp32 numbers a token and layer keeps: attention's log-sum-exp and what the norms divided by.
int64_t SavedStatistics(const LlamaConfig& c) {
  return c.num_attention_heads + 2 +
         (c.HasQkNorm() ? c.num_attention_heads + c.num_key_value_heads : 0);
}

// Weights as products read them: expanded from NF4 or, on a device without products of it, from
// fp8, whose codes others transpose; and transposed for the backward pass on a CPU; of the
// projections that open them in the first place (q, k, v; gate and up), and in the second
// (model/projection.h). Attention's that both passes read alike have places of their own where the
// forward pass is computed again (model/llama_layer.cc).
int64_t WeightBufferBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                          const std::string& recompute) {
  int64_t expanded[2] = {0, 0}, transposed[2] = {0, 0}, kept = 0;
  const std::vector<Stacked> projections = Projections(c, s);
  for (size_t i = 0; i < projections.size(); ++i) {
    const int64_t elements = projections[i].in * projections[i].out;
    const bool wide = !gpu && ReadsTransposed(projections[i], s, element);
    if (wide) transposed[i % 2] = std::max(transposed[i % 2], elements);
    if (s.Base() == BaseFormat::kCompute) continue;
    expanded[i % 2] = std::max(expanded[i % 2], elements);
    if (i < 2 && !wide && recompute == "full") kept += elements;
  }
  return (expanded[0] + expanded[1] + transposed[0] + transposed[1] + kept) * element;
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

// What the adapters' first products of a token and layer take where they are kept for the backward
// pass (LowRank in model/activations.h). `tile`: gate's and up's, which lie as they do themselves.
struct LowRankElements {
  int64_t rows = 0, tile = 0;
};
LowRankElements SavedLowRank(const LlamaConfig& c, const JobSpec& s, const std::string& recompute) {
  if (IsFull(s)) return {};
  const std::vector<Stacked> projections = Projections(c, s);
  const auto columns = [&](size_t i) { return projections[i].adapted * s.lora_rank.value_or(0); };
  const int64_t attention = columns(0) + columns(1);
  if (recompute != "none") return {attention, columns(2)};
  return {attention + columns(2) + columns(3), 0};
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

}  // namespace

int64_t SavedElements(const LlamaConfig& c, const std::string& recompute) {
  const int64_t q = QueryWidth(c), kv = KvWidth(c);
  if (recompute == "full") return c.hidden_size;
  int64_t lean = 2 * c.hidden_size + 2 * q + 2 * kv;  // h1, q, O, h2, k, v
  if (c.HasQkNorm()) lean += q + kv;                  // q and k before their norms
  return recompute == "selective" ? lean : lean + 2 * c.intermediate_size;
}

int64_t TileTokens(const LlamaConfig& c, const JobSpec& s) {
  return std::min(ShardTokens(c, s), kTileTokens);
}

int64_t LayerInputBytes(const LlamaConfig& c, const JobSpec& s, bool gpu) {
  return ShardTokens(c, s) * c.num_hidden_layers * c.hidden_size * ElementBytes(s, gpu);
}

int64_t ActivationBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                        const std::string& recompute) {
  int64_t bytes = SavedElements(c, recompute) * element;
  if (recompute != "full")
    bytes += SavedStatistics(c) * 4 + SavedLowRank(c, s, recompute).rows * element;
  bytes *= ShardTokens(c, s) * c.num_hidden_layers;
  // Offloaded, three layers' inputs are on the device at a time.
  if (gpu && s.activation_offload.value_or(false)) {
    bytes -= LayerInputBytes(c, s, gpu) / c.num_hidden_layers *
             std::max<int64_t>(0, c.num_hidden_layers - 3);
  }
  return bytes;
}

int64_t WorkspaceBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu,
                       const std::string& recompute) {
  const int64_t q = QueryWidth(c), kv = KvWidth(c), tokens = ShardTokens(c, s);
  // Of the whole row: the gradients of the residual stream, of q, k and v, and of attention's
  // output where x_mid has no room for it; what of a layer is computed again
  // (model/activations.h).
  int64_t elements = c.hidden_size + q + 2 * kv + (q == c.hidden_size ? 0 : q);
  const LowRankElements low_rank = SavedLowRank(c, s, recompute);
  if (recompute == "full")
    elements += SavedElements(c, "selective") - SavedElements(c, "full") + low_rank.rows;
  if (s.wrap.value_or("split") == "roll") elements += 3 * q + 2 * (q + 2 * kv);
  const int64_t statistics = recompute == "full" ? SavedStatistics(c) * 4 : 0;
  // Of a tile: a norm's output and its gradient, gate and up where they are computed again, their
  // product and its gradient.
  const int64_t tile = 2 * c.hidden_size + (recompute == "none" ? 2 : 4) * c.intermediate_size +
                       LoraScratchElements(c, s) + low_rank.tile;
  const int64_t rope = RowTokens(c, s) * c.head_dim * 4;  // cos and sin, D / 2 each
  return tokens * (elements * element + statistics) +
         TileTokens(c, s) * (tile * element + Fp8ScratchBytes(c, s)) + rope +
         WeightBufferBytes(c, s, element, gpu, recompute) +
         AttentionScratchBytes(c, s, element, gpu);
}

int64_t LossChunkTokens(const LlamaConfig& c, int64_t element) {
  return std::min(kTileTokens,
                  std::max<int64_t>(64, kHeadBytes / (c.vocab_size * element) / 64 * 64));
}

int64_t HeadBytes(const LlamaConfig& c, const JobSpec& s, int64_t element, bool gpu) {
  const int64_t tokens = ShardTokens(c, s);
  const int64_t row = (c.vocab_size + c.hidden_size) * element;  // logits, and the norm's input
  const int64_t chunk = std::min(tokens, LossChunkTokens(c, element));
  const bool trained = IsFull(s) || (c.tie_word_embeddings && s.TrainsEmbedding());
  // A GPU adds to the fp32 gradient itself.
  const bool rounded = trained && element == 2 && !gpu;
  const int64_t gradient = rounded ? c.vocab_size * c.hidden_size * element : 0;
  // Tokens, labels (int64), the norm's divisors and the loss (fp32).
  return chunk * row + gradient + tokens * (8 + 8 + 4 + 4);
}

}  // namespace ll
