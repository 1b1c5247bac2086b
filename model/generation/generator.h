// A model, a KV cache and the ids in it: prompts in, answers out. A prompt that begins as the last
// one did (the next turn of a conversation, many questions about one text) pays only for what is
// new.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/generation/sampler.h"
#include "model/kv_cache.h"
#include "model/llama.h"

namespace ll {

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t max_new_tokens = 256;
  std::vector<int32_t> eos_ids;  // any of them ends the answer; empty: none does
};

// kStopped: on_token asked for it.
enum class FinishReason { kEos, kLength, kStopped };

struct Completion {
  std::vector<int32_t> ids;  // what was generated, a closing EOS included
  FinishReason finish = FinishReason::kLength;
  int64_t prompt_tokens = 0;
  int64_t reused_tokens = 0;   // of the prompt, found in the cache
  double prefill_seconds = 0;  // the rest of the prompt, and the first logits
  double decode_seconds = 0;   // everything behind: ids.size() - 1 steps of the model
};

// Thread-safety: none; it drives the model.
class Generator {
 public:
  // The model is the caller's, outlives this, and may be used for other things in between; whoever
  // changes its weights calls Clear.
  explicit Generator(Llama& model);

  // Continues `prompt`, at least one id. `on_token` gets each new id as soon as it is known, a
  // closing EOS included, and returns false to stop behind it. The same prompt, options and build
  // give the same answer; what the cache held before may change the last bits of logits (a prompt
  // goes through the model in other pieces), so sampled answers are reproducible for the same
  // history. Errors: InvalidArgument for an empty prompt, ids beyond the vocabulary or sampling
  // options out of range; Internal for logits that are not numbers; ResourceExhausted for lack of
  // memory.
  absl::StatusOr<Completion> Complete(
      absl::Span<const int32_t> prompt, const GenerationOptions& options,
      absl::FunctionRef<bool(int32_t id)> on_token = [](int32_t) { return true; });

  // Forgets what the cache holds; its memory stays.
  void Clear();
  // Room for prompts and answers of `tokens` in all, so that the cache need not grow later.
  absl::Status Reserve(int64_t tokens);

  // The ids whose keys and values the cache holds.
  absl::Span<const int32_t> cached_ids() const { return ids_; }

 private:
  // Cuts the cache to the longest prefix that `prompt` shares with it, leaving at least one id of
  // the prompt to compute, and returns its length.
  int64_t ReusePrefix(absl::Span<const int32_t> prompt);
  absl::StatusOr<at::Tensor> Extend(absl::Span<const int32_t> ids);

  Llama& model_;
  KvCache cache_;
  std::vector<int32_t> ids_;
};

}  // namespace ll
