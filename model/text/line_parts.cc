#include "model/text/line_parts.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace ll {
namespace {
// Tokenizers treat the start of a text in their own ways; a later part must not look like one.
constexpr absl::string_view kContext = "a\n";
}  // namespace

size_t LastSafeCut(absl::string_view text) {
  for (size_t at = text.size(); at-- > 2;) {
    if (text[at - 1] == '\n' && absl::ascii_isalpha(static_cast<unsigned char>(text[at])) &&
        absl::ascii_isgraph(static_cast<unsigned char>(text[at - 2]))) {
      return at;
    }
  }
  return 0;
}

absl::StatusOr<LinePartEncoder> LinePartEncoder::Create(const Tokenizer& tokenizer) {
  if (!tokenizer.SplitsAtLines()) {
    return absl::FailedPreconditionError("the tokenizer does not split at lines");
  }
  LinePartEncoder encoder(tokenizer);
  LL_ASSIGN_OR_RETURN(encoder.context_, tokenizer.Encode(kContext));
  return encoder;
}

absl::Status LinePartEncoder::Encode(absl::string_view text, bool first,
                                     std::vector<int32_t>& out) const {
  if (first) {
    LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer_->Encode(text));
    out.insert(out.end(), ids.begin(), ids.end());
    return absl::OkStatus();
  }
  LL_ASSIGN_OR_RETURN(const std::vector<int32_t> ids,
                      tokenizer_->Encode(absl::StrCat(kContext, text)));
  if (ids.size() < context_.size() || !std::equal(context_.begin(), context_.end(), ids.begin())) {
    return absl::InternalError("a tokenizer that says it splits at lines does not");
  }
  out.insert(out.end(), ids.begin() + static_cast<std::ptrdiff_t>(context_.size()), ids.end());
  return absl::OkStatus();
}

}  // namespace ll
