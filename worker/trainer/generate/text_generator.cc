#include "worker/trainer/generate/text_generator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/chat/special_tokens.h"
#include "model/text/text_stream.h"
#include "worker/trainer/device.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

std::string Gigabytes(int64_t bytes) {
  return absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9);
}

absl::StatusOr<std::vector<int32_t>> EosIdsOf(const nlohmann::json& config, int64_t vocab) {
  const auto found = config.find("eos_token_id");
  std::vector<int32_t> ids;
  if (found == config.end() || found->is_null()) return ids;
  for (const auto& id : found->is_array() ? *found : nlohmann::json::array({*found})) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() >= vocab) {
      return MakeFieldError({"eos_token_id", absl::StrCat("ids below the vocabulary of ", vocab),
                             JsonExcerpt(*found)});
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

std::string FinishReasonName(const Completion& completion, bool stop_string) {
  if (stop_string) return "stop";
  switch (completion.finish) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStopped:
      return "interrupted";
  }
  return "";
}

}  // namespace

nlohmann::ordered_json ToJson(const Answer& answer) {
  const Completion& c = answer.completion;
  const auto count = static_cast<int64_t>(c.ids.size());
  const double behind_first = static_cast<double>(count - 1);
  return {{"text", answer.text},
          {"ids", c.ids},
          {"prompt_tokens", c.prompt_tokens},
          {"reused_tokens", c.reused_tokens},
          {"new_tokens", count},
          {"prefill_seconds", c.prefill_seconds},
          {"decode_seconds", c.decode_seconds},
          {"tokens_per_second", c.decode_seconds > 0 ? behind_first / c.decode_seconds : 0},
          {"finish_reason", answer.finish_reason}};
}

absl::StatusOr<std::vector<int32_t>> ReadEosIds(const std::string& model_folder,
                                                const LlamaConfig& config,
                                                const Tokenizer& tokenizer) {
  const std::string path = model_folder + "/generation_config.json";
  if (FileExists(path)) {
    LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
    const auto root = ParseJsonObject(text);
    if (!root.ok()) return Annotate(root.status(), path);
    const auto ids = EosIdsOf(*root, config.vocab_size);
    if (!ids.ok()) return Annotate(ids.status(), path);
    if (!ids->empty()) return ids;
  }
  const auto ids = EosIdsOf(config.raw, config.vocab_size);
  if (!ids.ok()) return Annotate(ids.status(), model_folder + "/config.json");
  if (ids->empty() && tokenizer.eos_id) return std::vector<int32_t>{*tokenizer.eos_id};
  return ids;
}

absl::StatusOr<std::unique_ptr<TextGenerator>> TextGenerator::Open(
    const TextGeneratorOptions& options) {
  std::unique_ptr<TextGenerator> out(new TextGenerator);
  out->strict_ = options.strict;
  out->warn_ = options.warn;
  LL_ASSIGN_OR_RETURN(out->folders_, ResolveModel(options.model));
  out->tokenizer_path_ = options.tokenizer.empty() ? out->folders_.model : options.tokenizer;
  auto tokenizer = OpenTokenizer(out->tokenizer_path_);
  if (absl::IsNotFound(tokenizer.status()) && options.tokenizer.empty()) {
    return FieldStatus(absl::StatusCode::kNotFound, "tokenizer",
                       std::string(tokenizer.status().message()),
                       "name the folder of one that fits the model with --tokenizer");
  }
  LL_RETURN_IF_ERROR(tokenizer.status());
  out->tokenizer_ = *std::move(tokenizer);
  const int64_t ids = out->tokenizer_->vocab_size(), vocab = out->folders_.config.vocab_size;
  if (ids > vocab) {
    return MakeFieldError({"tokenizer", absl::StrCat("at most the model's ", vocab, " ids"),
                           absl::StrCat(ids), "it belongs to another model"});
  }
  LL_ASSIGN_OR_RETURN(const SpecialTokens special,
                      ReadSpecialTokens(out->tokenizer_path_, *out->tokenizer_));
  out->adds_bos_ = special.adds_bos;
  LL_ASSIGN_OR_RETURN(out->eos_ids_,
                      ReadEosIds(out->folders_.model, out->folders_.config, *out->tokenizer_));
  return out;
}

absl::StatusOr<std::vector<int32_t>> TextGenerator::EncodePrompt(absl::string_view text) const {
  if (text.empty()) return MakeFieldError({"prompt", "some text", "none"});
  LL_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer_->Encode(text));
  const std::optional<int32_t> bos = adds_bos_ ? tokenizer_->bos_id : std::nullopt;
  if (bos && (ids.empty() || ids[0] != *bos)) ids.insert(ids.begin(), *bos);
  if (ids.empty()) return MakeFieldError({"prompt", "text of at least one token", "text of none"});
  return ids;
}

absl::Status TextGenerator::CheckContext(int64_t tokens) {
  const int64_t context = folders_.config.Reach();
  if (tokens <= context) return absl::OkStatus();
  const std::string found = absl::StrCat(tokens, " tokens of prompt and answer");
  const std::string expected = absl::StrCat("at most the ", context, " the model was trained for");
  if (strict_) {
    return MakeFieldError({"context_size", expected, found,
                           "shorten the prompt, ask for fewer new tokens, or scale the positions "
                           "with --context-size"},
                          absl::StatusCode::kFailedPrecondition);
  }
  if (!warned_) {
    warn_(absl::StrCat(found, ", expected ", expected,
                       ": answers may be nonsense; --context-size scales the positions"));
  }
  warned_ = true;
  return absl::OkStatus();
}

absl::Status TextGenerator::CheckMemory(int64_t tokens) const {
  const at::ScalarType dtype = folders_.options.dtype;
  const int64_t per_token = KvCache::BytesPerToken(folders_.config, dtype);
  // What the weights take, for a base that is not quantised; a quantised one is much smaller.
  const int64_t weights =
      model_ != nullptr || folders_.options.base == BaseFormat::kNf4
          ? 0
          : folders_.config.ParameterCount() * static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t available = AvailableMemoryBytes();
  // In floating point: a wish for 2^60 tokens must not overflow.
  const double needed = static_cast<double>(tokens) * static_cast<double>(per_token);
  if (needed + static_cast<double>(weights) <= static_cast<double>(available))
    return absl::OkStatus();
  const std::string cache = needed < 1e18 ? Gigabytes(static_cast<int64_t>(needed)) : "too much";
  return FieldStatus(
      absl::StatusCode::kResourceExhausted, "max_new_tokens",
      absl::StrCat("a cache of ", tokens, " tokens takes ", cache,
                   weights > 0 ? absl::StrCat(" and the weights ", Gigabytes(weights)) : "",
                   "; this machine has ", Gigabytes(available), " available"),
      "shorten the prompt, ask for fewer new tokens, or take --precision bf16");
}

absl::Status TextGenerator::Prepare(int64_t tokens) {
  LL_RETURN_IF_ERROR(CheckContext(tokens));
  if (tokens > room_tokens_) LL_RETURN_IF_ERROR(CheckMemory(tokens));
  if (model_ == nullptr) {
    LL_ASSIGN_OR_RETURN(model_, LoadModel(folders_));
    generator_.emplace(*model_);
  }
  if (tokens <= room_tokens_) return absl::OkStatus();
  LL_RETURN_IF_ERROR(generator_->Reserve(tokens));
  room_tokens_ = tokens;
  return absl::OkStatus();
}

absl::StatusOr<Answer> TextGenerator::Complete(absl::Span<const int32_t> prompt,
                                               const AnswerOptions& options,
                                               absl::FunctionRef<bool(absl::string_view)> on_text) {
  LL_RETURN_IF_ERROR(CheckSampling(options.generation.sampling));
  const int64_t wanted = options.generation.max_new_tokens;
  if (wanted < 1 || wanted > kMaxNewTokens) {
    return MakeFieldError(
        {"max_new_tokens", absl::StrCat("1 to ", kMaxNewTokens), absl::StrCat(wanted)});
  }
  LL_RETURN_IF_ERROR(Prepare(static_cast<int64_t>(prompt.size()) + wanted));
  GenerationOptions generation = options.generation;
  if (options.ignore_eos) {
    generation.eos_ids.clear();
  } else {
    generation.eos_ids.insert(generation.eos_ids.end(), eos_ids_.begin(), eos_ids_.end());
  }
  Answer answer;
  TextStream stream(*tokenizer_, prompt, options.stop_strings);
  const auto show = [&](const std::string& text) {
    answer.text += text;
    return on_text(text);
  };
  const auto& eos = generation.eos_ids;
  LL_ASSIGN_OR_RETURN(answer.completion, generator_->Complete(prompt, generation, [&](int32_t id) {
    // An EOS is no text, also where the tokenizer has one for it.
    if (std::find(eos.begin(), eos.end(), id) != eos.end()) return true;
    return show(stream.Push(id)) && !stream.stopped();
  }));
  show(stream.Finish());
  answer.finish_reason = FinishReasonName(answer.completion, stream.stopped());
  return answer;
}

}  // namespace ll
