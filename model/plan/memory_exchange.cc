#include <algorithm>
#include <cmath>

#include "model/plan/memory_parts.h"

namespace ll {
namespace {

bool UsesRing(const JobSpec& s) {
  return ContextRanks(s) > 1 &&
         (s.attention.value_or("s2") == "full" || s.FullAttentionSteps() > 0);
}

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

}  // namespace

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

}  // namespace ll
