#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/text/pre_tokenizer.h"
#include "model/text/regex.h"
#include "model/text/unicode.h"

namespace ll {
namespace {

using nlohmann::json;

absl::StatusOr<std::string> ReplaceMatches(const Regex& regex, const std::string& text,
                                           const std::string& with) {
  std::string out;
  size_t at = 0, begin = 0, end = 0;
  while (true) {
    LL_ASSIGN_OR_RETURN(bool found, regex.Find(text, at, &begin, &end));
    if (!found) break;
    out.append(text, at, begin - at);
    out.append(with);
    at = end;
  }
  return out.append(text, at, std::string::npos);
}

double Size(const std::string& text) { return static_cast<double>(text.size()); }

std::string StripText(const std::string& text, bool left, bool right) {
  size_t begin = 0, end = 0;
  bool seen = false;
  for (size_t at = 0; at < text.size();) {
    const size_t start = at;
    if (IsWhiteSpace(NextCodePoint(text, at))) continue;
    if (!seen) begin = start;
    seen = true;
    end = at;
  }
  if (!seen) return left || right ? "" : text;
  if (!left) begin = 0;
  if (!right) end = text.size();
  return text.substr(begin, end - begin);
}

absl::StatusOr<NormalizerStep> ParseReplace(const json& s, GrowthBudget& growth) {
  LL_ASSIGN_OR_RETURN(std::string content, JsonText(s, "content"));
  const json pattern = s.value("pattern", json());
  if (pattern.is_object() && pattern.contains("String")) {
    LL_ASSIGN_OR_RETURN(std::string from, JsonText(pattern, "String"));
    if (from.empty()) return absl::InvalidArgumentError("Replace: an empty pattern");
    LL_RETURN_IF_ERROR(growth.Spend(Size(content) / Size(from)));
    return NormalizerStep([from, content](std::string text) {
      return absl::StrReplaceAll(text, {{from, content}});
    });
  }
  if (!pattern.is_object()) return absl::InvalidArgumentError("Replace: no pattern");
  LL_ASSIGN_OR_RETURN(std::string source, JsonText(pattern, "Regex"));
  LL_RETURN_IF_ERROR(growth.Spend(Size(content)));  // a match has one byte at least
  LL_ASSIGN_OR_RETURN(auto regex, Regex::Compile(source));
  return NormalizerStep(
      [regex, content](std::string text) { return ReplaceMatches(*regex, text, content); });
}

absl::StatusOr<NormalizerStep> ParseOne(const std::string& type, const json& s,
                                        GrowthBudget& growth) {
  if (type == "Replace") return ParseReplace(s, growth);
  if (type == "Prepend") {
    LL_ASSIGN_OR_RETURN(std::string prefix, JsonText(s, "prepend"));
    LL_RETURN_IF_ERROR(growth.Spend(1 + Size(prefix)));
    return NormalizerStep(
        [prefix](std::string text) { return text.empty() ? text : prefix + text; });
  }
  LL_RETURN_IF_ERROR(growth.Spend(1));  // the rest lengthens a text once, not again
  const auto normal_form = [](NormalForm form) {
    return NormalizerStep([form](std::string text) { return NormalizeUtf8(text, form); });
  };
  if (type == "NFC") return normal_form(NormalForm::kNfc);
  if (type == "NFD") return normal_form(NormalForm::kNfd);
  if (type == "NFKC") return normal_form(NormalForm::kNfkc);
  if (type == "NFKD") return normal_form(NormalForm::kNfkd);
  if (type == "Lowercase")
    return NormalizerStep([](std::string text) { return LowercaseUtf8(text); });
  if (type == "Strip") {
    const bool left = s.value("strip_left", true), right = s.value("strip_right", true);
    return NormalizerStep([left, right](std::string text) { return StripText(text, left, right); });
  }
  return absl::InvalidArgumentError(absl::StrCat("normalizer: the type ", type, " is not known"));
}

}  // namespace

absl::Status GrowthBudget::Spend(double factor) {
  constexpr int kMaxSteps = 64;
  constexpr double kMaxGrowth = 256;  // known files need up to 16
  factor_ *= std::max(1.0, factor);
  if (++steps_ > kMaxSteps)
    return absl::InvalidArgumentError(
        absl::StrCat("expected at most ", kMaxSteps, " steps, found more"));
  if (factor_ <= kMaxGrowth) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("expected steps that make a text at most ",
                                                 kMaxGrowth, " times as long, found ", factor_));
}

absl::StatusOr<std::string> JsonText(const json& object, const char* member) {
  auto it = object.find(member);
  if (it == object.end() || !it->is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(member, ": expected a text"));
  }
  return it->get<std::string>();
}

absl::StatusOr<std::vector<NormalizerStep>> ParseNormalizer(const json& section,
                                                            GrowthBudget& growth) {
  std::vector<NormalizerStep> out;
  if (section.is_null()) return out;
  if (!section.is_object()) return absl::InvalidArgumentError("normalizer: expected an object");
  LL_ASSIGN_OR_RETURN(std::string type, JsonText(section, "type"));
  if (type == "Sequence") {
    for (const json& part : section.value("normalizers", json::array())) {
      LL_ASSIGN_OR_RETURN(auto steps, ParseNormalizer(part, growth));
      out.insert(out.end(), steps.begin(), steps.end());
    }
    return out;
  }
  LL_ASSIGN_OR_RETURN(NormalizerStep step, ParseOne(type, section, growth));
  out.push_back(std::move(step));
  return out;
}

}  // namespace ll
