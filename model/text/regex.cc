#include "model/text/regex.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace ll {
namespace {

// PCRE2's \s holds U+180E, which lost the property in Unicode 6.3; Oniguruma's follows White_Space.
std::string WithUnicodeWhiteSpace(absl::string_view pattern) {
  constexpr char kItems[] = "\\t-\\r\\x{85}\\p{Z}";
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 's') {
        absl::StrAppend(&out, in_class ? "" : "[", kItems, in_class ? "" : "]");
      } else if (next == 'S' && !in_class) {
        absl::StrAppend(&out, "[^", kItems, "]");
      } else {
        out.push_back(c);
        out.push_back(next);
      }
      continue;
    }
    if (c == '[' && !in_class)
      in_class = true;
    else if (c == ']')
      in_class = false;
    out.push_back(c);
  }
  return out;
}

// Scratch space of one thread. Patterns have no groups that anyone reads, so one pair of offsets is
// enough.
struct Scratch {
  Scratch()
      : data(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr)) {
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  pcre2_match_data* data;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

Regex::~Regex() = default;

absl::StatusOr<std::shared_ptr<const Regex>> Regex::Compile(absl::string_view pattern) {
  const std::string text = WithUnicodeWhiteSpace(pattern);
  int error = 0;
  size_t where = 0;
  std::shared_ptr<Regex> regex(new Regex);
  regex->code_ = std::make_unique<Code>();
  regex->code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &where, nullptr);
  if (regex->code_->code == nullptr) {
    PCRE2_UCHAR message[120];
    pcre2_get_error_message(error, message, sizeof(message));
    return absl::InvalidArgumentError(absl::StrCat(
        "the pattern ", pattern, " does not compile: ", reinterpret_cast<const char*>(message)));
  }
  pcre2_jit_compile(regex->code_->code,
                    PCRE2_JIT_COMPLETE);  // without it matching is slower, not wrong
  return std::shared_ptr<const Regex>(regex);
}

absl::StatusOr<bool> Regex::Find(absl::string_view text, size_t from, size_t* begin,
                                 size_t* end) const {
  thread_local Scratch scratch;
  const int rc =
      pcre2_match(code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                  PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, scratch.data, scratch.context);
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  if (rc < 0) {
    PCRE2_UCHAR message[120];
    pcre2_get_error_message(rc, message, sizeof(message));
    return absl::ResourceExhaustedError(
        absl::StrCat("a tokenizer's pattern: ", reinterpret_cast<const char*>(message)));
  }
  const size_t* offsets = pcre2_get_ovector_pointer(scratch.data);
  *begin = offsets[0];
  *end = offsets[1];
  return true;
}

}  // namespace ll
