#include "model/text/pack.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/text/token_file.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

std::vector<std::string> SplitAtBlankLines(const std::string& text) {
  std::vector<std::string> out;
  std::string document;
  const auto flush = [&] {
    if (!document.empty()) out.push_back(std::move(document));
    document.clear();
  };
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StripAsciiWhitespace(line).empty()) {
      flush();
    } else {
      absl::StrAppend(&document, line, "\n");
    }
  }
  flush();
  return out;
}

absl::StatusOr<std::vector<std::string>> SplitJsonLines(const std::string& path,
                                                        const std::string& text) {
  std::vector<std::string> out;
  int64_t number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    const auto entry =
        nlohmann::json::parse(line.begin(), line.end(), nullptr, /*allow_exceptions=*/false);
    if (!entry.is_object() || !entry.contains("text") || !entry["text"].is_string()) {
      return MakeFieldError({absl::StrCat(path, " line ", number),
                             "an object with the text member \"text\"", "something else"});
    }
    out.push_back(entry["text"].get<std::string>());
  }
  return out;
}

absl::StatusOr<std::vector<std::string>> Documents(const std::string& path, std::string text,
                                                   DocumentSplit split) {
  if (split == DocumentSplit::kBlankLine) return SplitAtBlankLines(text);
  if (split == DocumentSplit::kJsonLines) return SplitJsonLines(path, text);
  std::vector<std::string> one;
  if (!text.empty()) one.push_back(std::move(text));
  return one;
}

}  // namespace

absl::StatusOr<PackResult> PackText(const PackOptions& options, const Tokenizer& tokenizer) {
  if (options.inputs.empty()) return MakeFieldError({"input", "at least one text file", "none"});
  if (options.add_bos && !tokenizer.bos_id)
    return MakeFieldError({"bos", "a tokenizer with a BOS token", "none"});
  if (options.add_eos && !tokenizer.eos_id) {
    return MakeFieldError(
        {"eos", "a tokenizer with an EOS token", "none", "pack without an EOS token"});
  }
  LL_ASSIGN_OR_RETURN(
      TokenFileWriter writer,
      TokenFileWriter::Create(options.output, tokenizer.vocab_size(), tokenizer.hash()));
  PackResult result;
  for (const std::string& path : options.inputs) {
    LL_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
    result.text_bytes += static_cast<int64_t>(text.size());
    LL_ASSIGN_OR_RETURN(auto documents, Documents(path, std::move(text), options.split));
    for (const std::string& document : documents) {
      LL_ASSIGN_OR_RETURN(std::vector<int32_t> ids, tokenizer.Encode(document));
      if (options.add_bos) ids.insert(ids.begin(), *tokenizer.bos_id);
      if (options.add_eos) ids.push_back(*tokenizer.eos_id);
      LL_RETURN_IF_ERROR(writer.AppendDocument(ids));
    }
  }
  if (writer.documents() == 0) return MakeFieldError({options.inputs[0], "some text", "none"});
  result.tokens = writer.size();
  result.documents = writer.documents();
  LL_RETURN_IF_ERROR(writer.Finish());
  return result;
}

}  // namespace ll
