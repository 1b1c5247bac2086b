#include "model/text/sentencepiece_tokenizer.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "model/text/sentencepiece_check.h"
#include "model/text/split_rules.h"
#include "model/text/unicode.h"

namespace ll {

namespace {

// As FirstWord, and cut on both sides of a newline.
size_t FirstLineWord(absl::string_view text) {
  if (text[0] == '\n') return 1;
  return FirstWord(text.substr(0, text.find('\n')), /*marks=*/false);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SentencePieceTokenizer>> SentencePieceTokenizer::Parse(
    const std::string& serialized) {
  LL_RETURN_IF_ERROR(CheckSentencePieceModel(serialized));
  std::unique_ptr<SentencePieceTokenizer> out(new SentencePieceTokenizer);
  const std::string error = out->model_.Load(serialized);
  if (!error.empty())
    return absl::InvalidArgumentError("expected a SentencePiece model, found something else");
  out->hash_ = Sha256Hex(serialized);
  if (out->model_.bos_id() >= 0) out->bos_id = out->model_.bos_id();
  if (out->model_.eos_id() >= 0) out->eos_id = out->model_.eos_id();
  if (!out->EncodeWhole("\n", out->newline_).ok())
    return absl::InvalidArgumentError(
        "expected a SentencePiece model, found one that cannot encode");
  VocabularyReach reach;
  for (int id = 0; id < out->model_.size(); ++id) reach.Add(out->model_.piece(id));
  out->word_by_word_ = IsPlainBpeModel(serialized) && !reach.over_spaces && !reach.over_newlines;
  return out;
}

absl::Status SentencePieceTokenizer::EncodeWhole(absl::string_view text,
                                                 std::vector<int32_t>& out) const {
  std::vector<int> ids;
  const std::string error = model_.Encode({text.data(), text.size()}, ids);
  if (!error.empty()) return absl::InternalError(absl::StrCat("SentencePiece: ", error));
  out.insert(out.end(), ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status SentencePieceTokenizer::EncodeWord(absl::string_view word,
                                                std::vector<int32_t>& out) const {
  // The library puts a space in front of every text: behind a newline it does no harm.
  std::vector<int32_t> ids;
  LL_RETURN_IF_ERROR(EncodeWhole(absl::StrCat("\n", word), ids));
  LL_CHECK(ids.size() >= newline_.size());
  out.insert(out.end(), ids.begin() + static_cast<std::ptrdiff_t>(newline_.size()), ids.end());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<int32_t>> SentencePieceTokenizer::Encode(absl::string_view text) const {
  std::vector<int32_t> out;
  // The library has its own way with bytes that are not UTF-8.
  if (!word_by_word_ || text.empty() || !IsValidUtf8(text)) {
    LL_RETURN_IF_ERROR(EncodeWhole(text, out));
    return out;
  }
  WordCache& cache = TokenizerCaches::OfThisThread(cache_owner_).words;
  size_t done = FirstLineWord(text);
  LL_RETURN_IF_ERROR(EncodeWhole(text.substr(0, done), out));
  while (done < text.size()) {
    const absl::string_view word = text.substr(done, FirstLineWord(text.substr(done)));
    done += word.size();
    if (cache.Find(word, out)) continue;
    const size_t begin = out.size();
    LL_RETURN_IF_ERROR(EncodeWord(word, out));
    cache.Add(word, absl::MakeConstSpan(out).subspan(begin));
  }
  return out;
}

std::string SentencePieceTokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::vector<int> known;
  for (int32_t id : ids) {
    if (id >= 0 && id < model_.size()) known.push_back(id);
  }
  std::string text;
  return model_.Decode(known, text).empty() ? text : "";
}

absl::Status TrainSentencePiece(const SentencePieceTraining& t) {
  for (const std::string& input : t.inputs) {
    if (!FileExists(input)) return FieldStatus(absl::StatusCode::kNotFound, input, "no such file");
    if (absl::StrContains(input, ","))
      return MakeFieldError({input, "a path without a comma", "one"});
  }
  if (t.vocab_size < 300 && t.byte_fallback) {
    return MakeFieldError({"vocab_size", "at least 300 (256 bytes, 3 special tokens and some text)",
                           absl::StrCat(t.vocab_size)});
  }
  const std::string prefix = t.output + ".tmp";
  const std::string error =
      TrainSentencePieceModel({{"input", absl::StrJoin(t.inputs, ",")},
                               {"model_prefix", prefix},
                               {"vocab_size", absl::StrCat(t.vocab_size)},
                               {"model_type", t.type},
                               {"byte_fallback", t.byte_fallback ? "true" : "false"},
                               {"split_digits", "true"},
                               {"character_coverage", "0.9995"},
                               {"normalization_rule_name", "identity"},
                               {"remove_extra_whitespaces", "false"},
                               {"allow_whitespace_only_pieces", "true"},
                               {"num_threads", absl::StrCat(t.threads)},
                               {"max_sentence_length", "65536"},
                               {"minloglevel", "2"}});
  std::remove((prefix + ".vocab").c_str());
  if (!error.empty()) {
    std::remove((prefix + ".model").c_str());
    return FieldStatus(absl::StatusCode::kInvalidArgument, "tokenizer",
                       absl::StrCat("training failed: ", error));
  }
  return RenameDurably(prefix + ".model", t.output);
}

}  // namespace ll
