// A text on its way through the pipeline: pieces that point into the text, or into strings made on
// the way.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace ll {

struct Piece {
  absl::string_view text;
  bool first = false;  // starts at the first byte of the whole input
};

// The strings live as long as this object; a deque does not move them.
struct Pieces {
  std::vector<Piece> list;
  std::deque<std::string> made;

  absl::string_view Own(std::string text) { return made.emplace_back(std::move(text)); }
};

}  // namespace ll
