#include "model/chat/jinja/lexer.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/chat/jinja/text.h"

namespace ll::jinja {
namespace {

constexpr absl::string_view::size_type kNone = absl::string_view::npos;

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) {
      const size_t open = FindTag(at_);
      AddText(at_, open);
      if (open == kNone) break;
      at_ = open;
      const char kind = source_[at_ + 1];
      at_ += 2;
      if (at_ < source_.size() && (source_[at_] == '-' || source_[at_] == '+')) ++at_;
      if (kind == '#') {
        LL_RETURN_IF_ERROR(SkipComment());
      } else if (kind == '%' && AtRaw()) {
        LL_RETURN_IF_ERROR(Raw());
      } else {
        LL_RETURN_IF_ERROR(Tag(kind == '%'));
      }
    }
    Add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::Status Error(absl::string_view message) const {
    return absl::InvalidArgumentError(absl::StrCat("line ", line_, ": ", message));
  }
  void Add(Token::Kind kind, std::string text) {
    tokens_.push_back({kind, std::move(text), line_});
  }
  void CountLines(absl::string_view text) {
    line_ += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }

  // The next "{{", "{%" or "{#" from `from` on.
  size_t FindTag(size_t from) const {
    for (size_t i = source_.find('{', from); i != kNone; i = source_.find('{', i + 1)) {
      if (i + 1 < source_.size() && absl::StrContains("{%#", source_.substr(i + 1, 1))) return i;
    }
    return kNone;
  }

  // Text [from, open) in front of a tag (or the template's end), stripped as the tag wants it.
  void AddText(size_t from, size_t open) {
    absl::string_view text = source_.substr(from, open == kNone ? kNone : open - from);
    const absl::string_view whole = text;
    if (open != kNone) {
      const char kind = source_[open + 1];
      const char sign = open + 2 < source_.size() ? source_[open + 2] : ' ';
      if (sign == '-') {
        text = Strip(text, /*left=*/false, /*right=*/true);
      } else if (sign != '+' && kind != '{') {
        const size_t newline = text.rfind('\n');
        const bool starts_line = newline != kNone || line_start_;
        const size_t tail = newline == kNone ? 0 : newline + 1;
        if (starts_line && Strip(text.substr(tail), true, true).empty())
          text = text.substr(0, tail);
      }
    }
    if (!text.empty()) Add(Token::Kind::kText, std::string(text));
    CountLines(whole);
    line_start_ = !whole.empty() ? whole.back() == '\n' : line_start_;
  }

  // Behind a closed tag: `-` takes all white space, a block or comment takes one newline.
  void AfterTag(bool strip, bool take_newline) {
    const size_t from = at_;
    if (strip) {
      const absl::string_view rest = source_.substr(at_);
      at_ += rest.size() - Strip(rest, true, false).size();
    } else if (take_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    CountLines(source_.substr(from, at_ - from));
    line_start_ = at_ > from && source_[at_ - 1] == '\n';
  }

  absl::Status SkipComment() {
    const size_t end = source_.find("#}", at_);
    if (end == kNone) return Error("the comment has no end");
    CountLines(source_.substr(at_, end - at_));
    const bool strip = source_[end - 1] == '-', keep = source_[end - 1] == '+';
    at_ = end + 2;
    AfterTag(strip, !keep);
    return absl::OkStatus();
  }

  // Whether `rest` is "[-]word [-]%}", and how long.
  static size_t WordTag(absl::string_view rest, absl::string_view word) {
    size_t i = 0;
    const auto spaces = [&] {
      while (i < rest.size() && absl::ascii_isspace(static_cast<unsigned char>(rest[i]))) ++i;
    };
    spaces();
    if (!absl::StartsWith(rest.substr(i), word)) return 0;
    i += word.size();
    spaces();
    if (i < rest.size() && (rest[i] == '-' || rest[i] == '+')) ++i;
    return absl::StartsWith(rest.substr(i), "%}") ? i + 2 : 0;
  }
  bool AtRaw() const { return WordTag(source_.substr(at_), "raw") > 0; }

  absl::Status Raw() {
    const size_t head = WordTag(source_.substr(at_), "raw");
    at_ += head;
    AfterTag(source_[at_ - 3] == '-', source_[at_ - 3] != '+');
    for (size_t i = source_.find("{%", at_); i != kNone; i = source_.find("{%", i + 1)) {
      size_t tail = i + 2;
      if (tail < source_.size() && (source_[tail] == '-' || source_[tail] == '+')) ++tail;
      const size_t length = WordTag(source_.substr(tail), "endraw");
      if (length == 0) continue;
      AddText(at_, i);
      at_ = tail + length;
      AfterTag(source_[at_ - 3] == '-', source_[at_ - 3] != '+');
      return absl::OkStatus();
    }
    return Error("the raw block has no end");
  }

  absl::Status Tag(bool block) {
    Add(block ? Token::Kind::kBlockBegin : Token::Kind::kOutputBegin, "");
    const absl::string_view close = block ? "%}" : "}}";
    std::string open_brackets;
    while (true) {
      SkipSpaces();
      const absl::string_view rest = source_.substr(at_);
      if (rest.empty()) return Error("the tag has no end");
      const bool sign = rest[0] == '-' || (block && rest[0] == '+');
      if (open_brackets.empty() && absl::StartsWith(rest.substr(sign ? 1 : 0), close)) {
        at_ += close.size() + (sign ? 1 : 0);
        Add(block ? Token::Kind::kBlockEnd : Token::Kind::kOutputEnd, "");
        AfterTag(sign && rest[0] == '-', block && !sign);
        return absl::OkStatus();
      }
      LL_RETURN_IF_ERROR(Word(rest, open_brackets));
    }
  }

  void SkipSpaces() {
    while (at_ < source_.size() && absl::ascii_isspace(static_cast<unsigned char>(source_[at_]))) {
      if (source_[at_] == '\n') ++line_;
      ++at_;
    }
  }

  absl::Status Word(absl::string_view rest, std::string& open_brackets) {
    const unsigned char c = static_cast<unsigned char>(rest[0]);
    if (c == '"' || c == '\'') return String(rest);
    if (absl::ascii_isdigit(c)) return Number(rest);
    if (absl::ascii_isalpha(c) || c == '_') {
      size_t n = 1;
      while (n < rest.size() &&
             (absl::ascii_isalnum(static_cast<unsigned char>(rest[n])) || rest[n] == '_'))
        ++n;
      Add(Token::Kind::kName, std::string(rest.substr(0, n)));
      at_ += n;
      return absl::OkStatus();
    }
    static const absl::string_view kOperators[] = {
        "==", "!=", "<=", ">=", "//", "**", "+", "-", "*", "/", "%", "~", "<",
        ">",  "=",  ".",  ",",  ":",  "|",  "(", ")", "[", "]", "{", "}"};
    for (const absl::string_view op : kOperators) {
      if (!absl::StartsWith(rest, op)) continue;
      LL_RETURN_IF_ERROR(Balance(op[0], open_brackets));
      Add(Token::Kind::kOperator, std::string(op));
      at_ += op.size();
      return absl::OkStatus();
    }
    return Error(absl::StrCat("unknown syntax \"", PrintableStart(rest), "\""));
  }

  absl::Status Balance(char c, std::string& open_brackets) const {
    static constexpr absl::string_view kOpen = "([{", kClose = ")]}";
    if (kOpen.find(c) != kNone) open_brackets += kClose[kOpen.find(c)];
    if (kClose.find(c) == kNone) return absl::OkStatus();
    if (open_brackets.empty() || open_brackets.back() != c)
      return Error(absl::StrCat("unexpected \"", std::string(1, c), "\""));
    open_brackets.pop_back();
    return absl::OkStatus();
  }

  absl::Status Number(absl::string_view rest) {
    size_t n = 0;
    bool is_float = false;
    while (n < rest.size()) {
      const unsigned char c = static_cast<unsigned char>(rest[n]);
      const unsigned char next = n + 1 < rest.size() ? static_cast<unsigned char>(rest[n + 1]) : 0;
      if (c == '.' && !is_float && absl::ascii_isdigit(next)) {
        is_float = true;
      } else if (!absl::ascii_isdigit(c)) {
        break;
      }
      ++n;
    }
    Add(is_float ? Token::Kind::kFloat : Token::Kind::kInt, std::string(rest.substr(0, n)));
    at_ += n;
    return absl::OkStatus();
  }

  absl::Status String(absl::string_view rest) {
    for (size_t n = 1; n < rest.size(); ++n) {
      if (rest[n] == '\\') {
        ++n;
      } else if (rest[n] == rest[0]) {
        Add(Token::Kind::kString, Unescape(rest.substr(1, n - 1)));
        CountLines(rest.substr(0, n));
        at_ += n + 1;
        return absl::OkStatus();
      }
    }
    return Error("the string has no end");
  }

  const absl::string_view source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the text at at_ begins a line
  std::vector<Token> tokens_;
};

}  // namespace

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  std::string text = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return Lexer(text).Run();
}

}  // namespace ll::jinja
