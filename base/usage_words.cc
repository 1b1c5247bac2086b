#include "base/usage_words.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace ll {
namespace {

// The parts of `message` around `marks`, which follow each other in it; empty where they do not.
std::vector<std::string> PartsAround(absl::string_view message,
                                     const std::vector<absl::string_view>& marks) {
  std::vector<std::string> parts;
  for (const absl::string_view mark : marks) {
    const size_t at = message.find(mark);
    if (at == absl::string_view::npos) return {};
    parts.emplace_back(message.substr(0, at));
    message.remove_prefix(at + mark.size());
  }
  parts.emplace_back(message);
  return parts;
}

std::string ShortNumber(std::string text) {
  if (text.find('.') == std::string::npos) return text;
  text.erase(text.find_last_not_of('0') + 1);  // 0.200000
  if (text.back() == '.') text.pop_back();
  return text;
}

// The largest double is written in full.
std::string RangeInWords(const std::string& low, const std::string& high,
                         const std::string& found) {
  if (high.size() < 30) return absl::StrCat("from ", low, " to ", high);
  // PositiveNumber begins at the smallest double, which is written as 0 too; so does
  // NonNegativeNumber. What was refused tells them apart.
  return absl::StrCat(found == "0" ? "above " : "of at least ", low);
}

}  // namespace

std::string UsageInWords(const std::string& message) {
  if (const auto p = PartsAround(message, {"Value ", " not in range ", " to "}); !p.empty()) {
    const std::string found = ShortNumber(p[1]);
    return absl::StrCat(p[0], "expected a number ",
                        RangeInWords(ShortNumber(p[2]), ShortNumber(p[3]), found), ", found ",
                        found);
  }
  if (const auto p = PartsAround(message, {"Could not convert: ", " = "}); !p.empty())
    return absl::StrCat(p[1], ": expected a number, found ", p[2]);
  if (const auto p = PartsAround(message, {": ", " not in {", "}"}); !p.empty()) {
    return absl::StrCat(p[0], ": expected one of ", absl::StrReplaceAll(p[2], {{",", ", "}}),
                        ", found ", p[1]);
  }
  if (const auto p = PartsAround(message, {": At Most 1 required but received "}); !p.empty())
    return absl::StrCat(p[0], ": expected once, found ", p[1], " times");
  if (const auto p = PartsAround(message, {": 1 required ", " missing"}); !p.empty())
    return absl::StrCat(p[0], ": expected a value (", p[1], "), found none");
  return message;
}

}  // namespace ll
