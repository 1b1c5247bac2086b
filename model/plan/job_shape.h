// Shapes that follow from a model's config and a job's resolved spec: what memory_plan.h and
// time_plan.h count with. Pure functions, thread-safe. Units: elements, bytes and tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "model/plan/config.h"
#include "model/spec/job_spec.h"

namespace ll {

bool Trains(const JobSpec& s);  // its kind is train
bool IsFull(const JobSpec& s);  // method full: every weight trains
// Features of queries, and of keys or of values.
int64_t QueryWidth(const LlamaConfig& c);
int64_t KvWidth(const LlamaConfig& c);
// Ranks that share a row, and all ranks.
int64_t ContextRanks(const JobSpec& s);
int64_t Ranks(const JobSpec& s);

// A layer's projections, one by one: features in and out.
struct Linear {
  const char* name;  // "q_proj", …
  int64_t in, out;
};
std::vector<Linear> Linears(const LlamaConfig& config);
// Weights of the linear layers, in all layers together.
int64_t LinearParameterCount(const LlamaConfig& config);
// Whether the job trains an adapter on that projection.
bool Adapts(const JobSpec& resolved, const char* module);

// Projections as they are stored and computed: q, k, v are one, and so are gate and up.
struct Stacked {
  int64_t in = 0, out = 0;
  int64_t adapted = 0;  // of its parts
};
std::vector<Stacked> Projections(const LlamaConfig& config, const JobSpec& resolved);
// Whether a CPU's backward pass reads the projection's weight transposed (model/projection.h).
bool ReadsTransposed(const Stacked& projection, const JobSpec& resolved, int64_t element);

// Tokens of the longest row the job runs, and what of it one rank holds.
int64_t RowTokens(const LlamaConfig& config, const JobSpec& resolved);
int64_t ShardTokens(const LlamaConfig& config, const JobSpec& resolved);
// Tokens of such a row in a group of S²-Attn, whose size goes by context_length however short rows
// are; and the most that attend to each other in any step: all, where some use full attention.
int64_t S2GroupTokens(const LlamaConfig& config, const JobSpec& resolved);
int64_t GroupTokens(const LlamaConfig& config, const JobSpec& resolved);
// Bytes of a weight or an activation: bf16 unless the spec or a CPU's evaluation says fp32.
int64_t ElementBytes(const JobSpec& resolved, bool gpu);

// Parameters that train: LoRA's r*(in+out) per target, embedding and norms (head not counted again
// where it is tied), or all of them with method full.
int64_t LoraParameterCount(const LlamaConfig& config, const JobSpec& resolved);
int64_t TrainableParameterCount(const LlamaConfig& config, const JobSpec& resolved);

}  // namespace ll
