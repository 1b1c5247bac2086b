#include "model/chat/sft_encoder.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/chat/prompt.h"
#include "model/chat/special_tokens.h"

namespace ll {
namespace {

int64_t Targets(const SftSample& sample) {
  int64_t targets = 0;
  for (const auto& [start, end] : sample.loss_spans) targets += end - start;
  return targets;
}

// Adds ids [start, end) as a span, joined to the last one where they touch. Position 0 has no token
// that could predict it.
void AddSpan(SftSample& sample, int64_t start, int64_t end) {
  start = std::max<int64_t>(start, 1);
  if (!sample.loss_spans.empty()) start = std::max(start, sample.loss_spans.back().second);
  if (start >= end) return;
  if (!sample.loss_spans.empty() && sample.loss_spans.back().second == start) {
    sample.loss_spans.back().second = end;
  } else {
    sample.loss_spans.emplace_back(start, end);
  }
}

// Takes ids [begin, end) out of the sample.
void Remove(SftSample& sample, int64_t begin, int64_t end) {
  const auto moved = [&](int64_t at) {
    return at <= begin ? at : at < end ? begin : at - (end - begin);
  };
  sample.ids.erase(sample.ids.begin() + begin, sample.ids.begin() + end);
  SftSample cut;
  for (const auto& [start, stop] : sample.loss_spans) AddSpan(cut, moved(start), moved(stop));
  sample.loss_spans = std::move(cut.loss_spans);
}

}  // namespace

SftEncoder::SftEncoder(SftOptions options, std::shared_ptr<const Tokenizer> tokenizer,
                       MarkedTokenizer marked, std::unique_ptr<PromptTemplate> prompt_template)
    : options_(std::move(options)),
      tokenizer_(std::move(tokenizer)),
      marked_(std::move(marked)),
      template_(std::move(prompt_template)) {}
SftEncoder::~SftEncoder() = default;

absl::StatusOr<std::string> SftIdentity(const SftOptions& options, const Tokenizer& tokenizer,
                                        const std::string& model_folder) {
  LL_ASSIGN_OR_RETURN(const SpecialTokens tokens, ReadSpecialTokens(model_folder, tokenizer));
  std::string out = absl::StrCat("tokenizer ", tokenizer.hash());
  for (const auto& [name, text] : tokens.texts) absl::StrAppend(&out, " ", name, " ", text);
  return absl::StrCat(out, " sft ", options.prompt_template, " ", options.truncation, " ",
                      options.max_seq_length, " ", tokens.adds_bos ? "bos " : "",
                      options.prompt_template == "chat_template" ? tokens.chat_template : "");
}

absl::StatusOr<std::unique_ptr<SftEncoder>> SftEncoder::Create(
    const SftOptions& options, std::shared_ptr<const Tokenizer> tokenizer,
    const std::string& model_folder) {
  static const char* const kTruncations[] = {"right", "left", "drop", "error"};
  if (std::find(std::begin(kTruncations), std::end(kTruncations), options.truncation) ==
      std::end(kTruncations)) {
    return MakeFieldError({"truncation", "right, left, drop or error", options.truncation});
  }
  LL_ASSIGN_OR_RETURN(const SpecialTokens tokens, ReadSpecialTokens(model_folder, *tokenizer));
  LL_ASSIGN_OR_RETURN(auto prompt_template, MakePromptTemplate(options.prompt_template, tokens));
  LL_ASSIGN_OR_RETURN(auto marked, MarkedTokenizer::Create(tokenizer, tokens));
  LL_RETURN_IF_ERROR(CheckMarks(*prompt_template, *tokenizer));
  return std::unique_ptr<SftEncoder>(
      new SftEncoder(options, std::move(tokenizer), std::move(marked), std::move(prompt_template)));
}

absl::StatusOr<SftSample> SftEncoder::Encode(const Record& record) const {
  auto sample = EncodeRecord(record);
  if (!sample.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(record.file, ":", record.line, ": ", sample.status().message()));
  }
  return sample;
}

absl::StatusOr<SftSample> SftEncoder::EncodeRecord(const Record& record) const {
  LL_ASSIGN_OR_RETURN(const std::vector<ChatMessage> messages, Conversation(record));
  LL_ASSIGN_OR_RETURN(const Prompt prompt, template_->Format(record, messages));
  LL_ASSIGN_OR_RETURN(SftSample sample, template_->boundary() == Boundary::kSeparate
                                            ? TokenizeApart(prompt)
                                            : TokenizeJointly(prompt));
  LL_RETURN_IF_ERROR(Truncate(sample));
  if (!sample.ids.empty() && sample.loss_spans.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("no token of the answer is left within max_seq_length (",
                     options_.max_seq_length, "); raise it, or set truncation: left"));
  }
  return sample;
}

absl::StatusOr<SftSample> SftEncoder::TokenizeApart(const Prompt& prompt) const {
  SftSample sample;
  const absl::string_view text = prompt.text;
  const auto append = [&](size_t begin, size_t end) -> absl::Status {
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                        marked_.Encode(text.substr(begin, end - begin)));
    sample.ids.insert(sample.ids.end(), ids.begin(), ids.end());
    return absl::OkStatus();
  };
  size_t at = 0;
  for (const auto& [begin, end] : prompt.trained) {
    LL_RETURN_IF_ERROR(append(at, begin));
    const int64_t start = static_cast<int64_t>(sample.ids.size());
    LL_RETURN_IF_ERROR(append(begin, end));
    AddSpan(sample, start, static_cast<int64_t>(sample.ids.size()));
    at = end;
  }
  LL_RETURN_IF_ERROR(append(at, text.size()));
  return sample;
}

absl::StatusOr<SftSample> SftEncoder::TokenizeJointly(const Prompt& prompt) const {
  std::vector<size_t> positions;
  for (const auto& [begin, end] : prompt.trained) positions.insert(positions.end(), {begin, end});
  LL_ASSIGN_OR_RETURN(MarkedTokenizer::Marked marked,
                      marked_.EncodeWithBorders(prompt.text, positions));
  SftSample sample;
  sample.ids = std::move(marked.ids);
  const bool count = template_->boundary() == Boundary::kCount;
  for (size_t i = 0; i < marked.borders.size(); i += 2) {
    const auto &begin = marked.borders[i], &end = marked.borders[i + 1];
    // A token across the answer's end holds a part of it.
    const int64_t across = end.prefix_tokens > end.common_tokens ? 1 : 0;
    AddSpan(sample, count ? begin.prefix_tokens : begin.common_tokens,
            std::min<int64_t>(end.common_tokens + across, static_cast<int64_t>(sample.ids.size())));
  }
  return sample;
}

absl::Status SftEncoder::Truncate(SftSample& sample) const {
  const int64_t limit = options_.max_seq_length, length = static_cast<int64_t>(sample.ids.size());
  if (limit <= 0 || length <= limit) return absl::OkStatus();
  const int64_t targets = Targets(sample);
  if (options_.truncation == "drop") {
    sample = {{}, {}, targets};
    return absl::OkStatus();
  }
  if (options_.truncation == "error") {
    return absl::InvalidArgumentError(
        absl::StrCat("expected at most ", limit, " tokens (max_seq_length), found ", length));
  }
  if (options_.truncation == "left" && !sample.loss_spans.empty()) {
    // The BOS stays, and so does one token in front of the first target.
    const int64_t kept = sample.ids[0] == tokenizer_->bos_id ? 1 : 0;
    const int64_t prompt = sample.loss_spans[0].first;
    const int64_t cut = std::min(length - limit, prompt - std::max<int64_t>(kept, 1));
    if (cut > 0) Remove(sample, kept, kept + cut);
  }
  if (static_cast<int64_t>(sample.ids.size()) > limit)
    Remove(sample, limit, static_cast<int64_t>(sample.ids.size()));
  sample.truncated_targets = targets - Targets(sample);
  return absl::OkStatus();
}

}  // namespace ll
