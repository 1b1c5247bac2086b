#include "model/generation/generator.h"

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"

namespace ll {
namespace {

using SteadyClock = std::chrono::steady_clock;

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

}  // namespace

Generator::Generator(Llama& model)
    : model_(model), cache_(model.config(), model.options().compute()) {}

void Generator::Clear() {
  cache_.Truncate(0);
  ids_.clear();
}

absl::Status Generator::Reserve(int64_t tokens) {
  return TorchTry([&] {
    cache_.Reserve(tokens);
    return absl::OkStatus();
  });
}

int64_t Generator::ReusePrefix(absl::Span<const int32_t> prompt) {
  const LlamaConfig& config = model_.config();
  const auto longest = static_cast<int64_t>(std::max(prompt.size(), ids_.size()));
  int64_t shared = 0;
  // Dynamic NTK turns keys by the length they were computed at: beyond the original context a
  // prefix of another length is not this prompt's.
  if (config.rope.type != RopeScaling::Type::kDynamicNtk ||
      longest <= config.max_position_embeddings) {
    const auto [in_prompt, in_cache] =
        std::mismatch(prompt.begin(), prompt.end(), ids_.begin(), ids_.end());
    shared = std::min<int64_t>(in_prompt - prompt.begin(), static_cast<int64_t>(prompt.size()) - 1);
  }
  cache_.Truncate(shared);
  ids_.resize(static_cast<size_t>(shared));
  return shared;
}

absl::StatusOr<at::Tensor> Generator::Extend(absl::Span<const int32_t> ids) {
  auto logits = model_.Extend(ids, cache_);
  // After an error the cache may hold a part of them.
  ids_.insert(ids_.end(), ids.begin(), ids.begin() + (cache_.tokens() - ids_.size()));
  return logits;
}

absl::StatusOr<Completion> Generator::Complete(absl::Span<const int32_t> prompt,
                                               const GenerationOptions& options,
                                               absl::FunctionRef<bool(int32_t)> on_token) {
  LL_RETURN_IF_ERROR(CheckSampling(options.sampling));
  if (prompt.empty()) return MakeFieldError({"prompt", "at least one token", "none"});
  if (options.max_new_tokens < 1)
    return MakeFieldError({"max_new_tokens", "at least 1", absl::StrCat(options.max_new_tokens)});
  Completion done;
  done.prompt_tokens = static_cast<int64_t>(prompt.size());
  SteadyClock::time_point start = SteadyClock::now();
  done.reused_tokens = ReusePrefix(prompt);
  LL_ASSIGN_OR_RETURN(at::Tensor logits,
                      Extend(prompt.subspan(static_cast<size_t>(done.reused_tokens))));
  done.prefill_seconds = SecondsSince(start);

  start = SteadyClock::now();
  std::vector<int32_t> context(prompt.begin(), prompt.end());
  while (true) {
    const absl::Span<float> values(logits.data_ptr<float>(), static_cast<size_t>(logits.numel()));
    ProcessLogits(options.sampling, context, values);
    const int32_t id = DrawToken(options.sampling, done.ids.size(), values);
    if (id < 0) return absl::InternalError("the model's logits are not numbers");
    done.ids.push_back(id);
    context.push_back(id);
    const bool stop = !on_token(id);
    const auto& eos = options.eos_ids;
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) {
      done.finish = FinishReason::kEos;
    } else if (stop) {
      done.finish = FinishReason::kStopped;
    } else if (static_cast<int64_t>(done.ids.size()) < options.max_new_tokens) {
      LL_ASSIGN_OR_RETURN(logits, Extend({id}));
      continue;
    }
    break;
  }
  done.decode_seconds = SecondsSince(start);
  return done;
}

}  // namespace ll
