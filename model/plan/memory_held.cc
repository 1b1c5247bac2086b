#include <algorithm>

#include "model/plan/memory_parts.h"

namespace ll {
namespace {

// 4.127 bits a weight: NF4 in blocks of 64 with doubly quantised absmax (QLoRA).
constexpr double kNf4Bytes = 4.127 / 8;

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

// With ZeRO a rank owns one part of what trains, and holds masters and moments of that alone.
int64_t OwnedCount(const LlamaConfig& c, const JobSpec& s) {
  const int64_t all = TrainableParameterCount(c, s);
  if (s.zero_stage.value_or(0) == 0) return all;
  return (all + Ranks(s) - 1) / Ranks(s);
}

// Of parts that ranks wrote, rank 0 makes the adapter: their masters as read, and in one piece.
int64_t AdapterOfPartsBytes(const LlamaConfig& c, const JobSpec& s) {
  if (s.zero_stage.value_or(0) == 0 || Ranks(s) == 1 || IsFull(s)) return 0;
  return 2 * 4 * TrainableParameterCount(c, s);
}

}  // namespace

double LayerBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  double bytes = 0;
  for (const Linear& l : Linears(c))
    bytes += static_cast<double>(l.in * l.out) * BaseBytes(s, l.in, element);
  return bytes;
}

int64_t WeightBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t linear = LinearParameterCount(c);
  const int64_t tables = c.vocab_size * c.hidden_size * (c.tie_word_embeddings ? 1 : 2) * element;
  const int64_t norms = (c.ParameterCount() - linear - tables / element) * 4;  // kept in fp32
  double held = LayerBytes(c, s, element) * static_cast<double>(c.num_hidden_layers);
  // A share of every layer; the two whole ones are in CommunicationBytes (model/sharded_base.h).
  if (s.shard_base.value_or(false)) held /= static_cast<double>(Ranks(s));
  return static_cast<int64_t>(held) + tables + norms;
}

int64_t MappedFileBytes(const LlamaConfig& c, const JobSpec& s) {
  if (s.model_config) return 0;
  const int64_t element = c.dtype == "float32" ? 4 : 2, linear = LinearParameterCount(c);
  const int64_t rest = (c.ParameterCount() - linear) * element;
  return rest + (c.quantized ? static_cast<int64_t>(static_cast<double>(linear) * kNf4Bytes)
                             : linear * element);
}

int64_t GradientBytes(const LlamaConfig& c, const JobSpec& s) {
  const int64_t all = TrainableParameterCount(c, s);
  const int64_t data_ranks = std::max<int64_t>(1, Ranks(s) / ContextRanks(s));
  const bool one_row = s.global_batch_size.value_or(data_ranks + 1) <= data_ranks;
  if (s.zero_stage.value_or(0) < 2 || Ranks(s) == 1 || !one_row) return 4 * all;
  const bool embedding = IsFull(s) || s.TrainsEmbedding();
  return 4 * std::min(all, OwnedCount(c, s) + kBucketElements +
                               (embedding ? c.vocab_size * c.hidden_size : 0));
}

int64_t MasterBytes(const LlamaConfig& c, const JobSpec& s, int64_t element) {
  const int64_t lora = LoraParameterCount(c, s), copies = element == 4 ? 0 : lora * element;
  if (s.zero_stage.value_or(0) > 0 && Ranks(s) > 1) return 4 * OwnedCount(c, s) + copies;
  int64_t norms = s.TrainsNorm() ? (2 * c.num_hidden_layers + 1) * c.hidden_size : 0;
  if (s.TrainsNorm() && c.HasQkNorm()) norms += 2 * c.num_hidden_layers * c.head_dim;
  const int64_t wide = TrainableParameterCount(c, s) - lora - norms;
  return (element == 4 ? 0 : 4) * wide + 4 * lora + copies;
}

int64_t OptimizerBytes(const LlamaConfig& c, const JobSpec& s) { return 8 * OwnedCount(c, s); }

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

}  // namespace ll
