#include "llctl/help_format.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace ll {
namespace {
constexpr size_t kTextColumn = 34;
constexpr size_t kLastColumn = 100;
}  // namespace

std::string HelpFormat::make_option(const CLI::Option* option, bool is_positional) const {
  // CLI11 shows what a negative flag sets as "--no-x{false}".
  std::string out = absl::StrCat(
      "  ", absl::StrReplaceAll(make_option_name(option, is_positional), {{"{false}", ""}}),
      make_option_opts(option));
  const std::string indent(kTextColumn, ' ');
  size_t column = out.size();
  if (column + 1 > kTextColumn) {
    absl::StrAppend(&out, "\n", indent);
  } else {
    out.resize(kTextColumn, ' ');
  }
  column = kTextColumn;
  bool first = true;
  for (absl::string_view word : absl::StrSplit(make_option_desc(option), ' ', absl::SkipEmpty())) {
    if (!first && column + 1 + word.size() > kLastColumn) {
      absl::StrAppend(&out, "\n", indent, word);
      column = kTextColumn + word.size();
    } else {
      absl::StrAppend(&out, first ? "" : " ", word);
      column += word.size() + (first ? 0 : 1);
    }
    first = false;
  }
  return out + "\n";
}

}  // namespace ll
