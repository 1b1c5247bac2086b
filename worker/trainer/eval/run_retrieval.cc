#include "worker/trainer/eval/run_retrieval.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/generation/generator.h"

namespace ll {
namespace {

void WarnBeyondReach(const Llama& model, int64_t longest, const Comm& comm, EventSink& events) {
  const int64_t reach = model.config().Reach();
  if (comm.rank() != 0 || longest <= reach) return;
  events.Warning(absl::StrCat("prompts of ", longest, " tokens are longer than the ", reach,
                              " the model reaches; give a context size of ", longest,
                              " to scale its positions"));
}

// The greedy answer; the generator's cache holds what the prompts have in common.
absl::StatusOr<std::vector<int32_t>> Complete(Generator& generator,
                                              absl::Span<const int32_t> prompt, int64_t new_tokens,
                                              const std::vector<int32_t>& eos_ids) {
  GenerationOptions options;
  options.max_new_tokens = new_tokens;
  options.eos_ids = eos_ids;
  LL_ASSIGN_OR_RETURN(Completion completion, generator.Complete(prompt, options));
  return std::move(completion.ids);
}

ProgressFn Told(EventSink& events) {
  return [&events](int64_t done, int64_t total) {
    events.Phase("eval", {{"prompts_done", done}, {"prompts_total", total}});
  };
}

}  // namespace

absl::StatusOr<PasskeyResult> MeasurePasskey(Llama& model, const PromptEncoder& encoder,
                                             const PasskeyOptions& options, Comm& comm,
                                             EventSink& events) {
  WarnBeyondReach(model,
                  options.lengths.empty()
                      ? options.max_tokens
                      : *std::max_element(options.lengths.begin(), options.lengths.end()),
                  comm, events);
  Generator generator(model);
  return RunPasskey(
      options, [&](absl::string_view text) { return encoder.Encode(text); },
      [&](absl::Span<const int32_t> prompt, int64_t new_tokens) {
        // An EOS in place of the key is a wrong answer like any other.
        return Complete(generator, prompt, new_tokens, {});
      },
      comm, Told(events));
}

absl::StatusOr<TopicsResult> MeasureTopics(Llama& model, const PromptEncoder& encoder,
                                           const TopicsOptions& options, const std::string& prompt,
                                           Comm& comm, EventSink& events) {
  const bool chat = prompt == "chat" || (prompt == "auto" && encoder.has_chat_template());
  WarnBeyondReach(model, *std::max_element(options.lengths.begin(), options.lengths.end()), comm,
                  events);
  Generator generator(model);
  std::vector<int32_t> eos_ids;
  if (encoder.tokenizer().eos_id) eos_ids = {*encoder.tokenizer().eos_id};
  const auto encode = [&](absl::string_view text) {
    return chat ? encoder.EncodeChat(text)
                : encoder.Encode(absl::StrCat("USER: ", text, "\nASSISTANT:"));
  };
  return RunTopics(
      options, encode, [&](absl::Span<const int32_t> ids) { return encoder.Decode(ids); },
      [&](absl::Span<const int32_t> prompt, int64_t new_tokens) {
        return Complete(generator, prompt, new_tokens, eos_ids);
      },
      comm, Told(events));
}

}  // namespace ll
