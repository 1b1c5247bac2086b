// HTML that what users write cannot become part of: markup comes from literals alone, everything
// else is escaped.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace ll {

// Text that the compiler knows.
class Markup {
 public:
  // NOLINTNEXTLINE(google-explicit-constructor): reads as the literal it is
  consteval Markup(const char* text) : text_(text) {}
  absl::string_view text() const { return text_; }

 private:
  absl::string_view text_;
};

// Builds a page or a part of one. Not thread-safe.
class Html {
 public:
  Html& Raw(Markup markup) {
    absl::StrAppend(&out_, markup.text());
    return *this;
  }
  // Escaped, for text and for attributes in double quotes. Bytes that are no valid UTF-8 and
  // control characters become U+FFFD.
  Html& Text(absl::string_view text);
  Html& Number(int64_t number);
  // One segment or value of an address, percent-encoded.
  Html& UrlPart(absl::string_view text);
  // A part that was built the same way.
  Html& Add(const Html& part) {
    out_ += part.out_;
    return *this;
  }
  // An image that model/report drew: it escapes what it is given.
  Html& Svg(absl::string_view svg) {
    absl::StrAppend(&out_, svg);
    return *this;
  }

  const std::string& str() const { return out_; }
  bool empty() const { return out_.empty(); }

 private:
  std::string out_;
};

// "%41" and '+' decoded, as in a form. What is no valid code stays as it is.
std::string UrlDecode(absl::string_view text);

}  // namespace ll
