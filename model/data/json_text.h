// The brackets of a JSON text, followed byte by byte: where a value ends, and how deep it goes,
// before anything is parsed.
#pragma once

namespace ll {

inline constexpr int kMaxJsonDepth = 64;  // as JsonLimits
inline constexpr char kJsonDepthLimit[] = "at most 64 levels of JSON";

class JsonNesting {
 public:
  // False: deeper than kMaxJsonDepth.
  bool Feed(char c) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
      }
      return true;
    }
    if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      return ++depth_ <= kMaxJsonDepth;
    } else if (c == '}' || c == ']') {
      --depth_;
    }
    return true;
  }
  // After a byte that closed the outermost bracket.
  bool closed() const { return depth_ <= 0 && !in_string_; }

 private:
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

}  // namespace ll
