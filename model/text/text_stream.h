// Generated ids to text that can be shown while it grows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/text/tokenizer.h"

namespace ll {

// Holds back what may still change: half of a UTF-8 character, and text that may become a stop
// string, which can begin and end within tokens. Not thread-safe.
class TextStream {
 public:
  // The tokenizer is the caller's and outlives this. `context` are the ids in front (a prompt, or
  // its last few), which decide whether the first token's leading space is shown. Empty stop
  // strings are ignored.
  TextStream(const Tokenizer& tokenizer, absl::Span<const int32_t> context,
             std::vector<std::string> stop_strings);

  // The text that `id` makes ready. After a stop string has come up: the rest of the text in front
  // of it, once, then nothing.
  std::string Push(int32_t id);
  // Whether a stop string has come up.
  bool stopped() const { return stopped_; }
  // What is still held back, at the end of the answer.
  std::string Finish();

 private:
  // The text that the ids since the last piece add, or "" where it may change; all of it if `last`.
  std::string Decode(bool last);
  // Adds `text` and returns what can be shown.
  std::string Release(absl::string_view text, bool last);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stop_strings_;
  // Ids [shown_, end) are not shown yet; decoding begins at begin_, a piece before, because a
  // token's text may depend on the one in front of it.
  std::vector<int32_t> ids_;
  size_t begin_ = 0, shown_ = 0;
  std::string held_;  // decoded, and perhaps the beginning of a stop string
  bool stopped_ = false;
};

}  // namespace ll
