#include "model/plan/job_shape.h"

#include <algorithm>
#include <string>

namespace ll {

bool Trains(const JobSpec& s) { return s.kind.value_or("train") == "train"; }
bool IsFull(const JobSpec& s) { return s.method == "full"; }
int64_t QueryWidth(const LlamaConfig& c) { return c.num_attention_heads * c.head_dim; }
int64_t KvWidth(const LlamaConfig& c) { return c.num_key_value_heads * c.head_dim; }
int64_t ContextRanks(const JobSpec& s) { return s.context_parallel.value_or(1); }
int64_t Ranks(const JobSpec& s) { return std::max(s.gpus.value_or(1), ContextRanks(s)); }

std::vector<Linear> Linears(const LlamaConfig& c) {
  const int64_t d = c.hidden_size, f = c.intermediate_size;
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  return {{"q_proj", d, q},    {"k_proj", d, kv}, {"v_proj", d, kv},  {"o_proj", q, d},
          {"gate_proj", d, f}, {"up_proj", d, f}, {"down_proj", f, d}};
}

int64_t LinearParameterCount(const LlamaConfig& c) {
  int64_t count = 0;
  for (const Linear& l : Linears(c)) count += l.in * l.out * c.num_hidden_layers;
  return count;
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

int64_t S2GroupTokens(const LlamaConfig& c, const JobSpec& s) {
  const int64_t tokens = RowTokens(c, s), context = s.context_length.value_or(tokens);
  // LongLoRA's rule for samples (sft_loader.h): a quarter of some lengths, 8,192 tokens of others.
  const int64_t group =
      s.sft_group == "longlora_sft"
          ? std::max<int64_t>(8192, tokens / 4)
          : static_cast<int64_t>(s.group_ratio.value_or(0.25) * static_cast<double>(context));
  return std::clamp<int64_t>(group, 1, tokens);
}

int64_t GroupTokens(const LlamaConfig& c, const JobSpec& s) {
  const bool whole = s.attention.value_or("s2") == "full" || s.FullAttentionSteps() > 0;
  return whole ? RowTokens(c, s) : S2GroupTokens(c, s);
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

bool ReadsTransposed(const Stacked& p, const JobSpec& s, int64_t element) {
  return s.Base() != BaseFormat::kFp8 && element == 2 && p.out > p.in && p.in % 64 == 0;
}

}  // namespace ll
