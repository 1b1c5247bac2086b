// JSON that comes from files and from the network, read with bounds.
//
// Every reader of this project parses through here, so that one set of rules holds: a text that
// nests deeply (and would exhaust the stack of whoever walks or prints it), that holds a key twice
// (and would mean different things to different readers), or that expands to more values than its
// reader expects, is refused while it is read.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ll {

struct JsonLimits {
  int max_depth = 64;               // levels of objects and lists
  int64_t max_values = 10'000'000;  // of any kind; a value takes some 16 to 64 bytes of memory
};

// The object that `text` holds. InvalidArgument without the file's name (the caller annotates): bad
// syntax or bytes that are not UTF-8 (with line and column), another kind of value than an object,
// a key given twice, a limit passed. Thread-safe; throws nothing.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text,
                                               const JsonLimits& limits = {});

// At most `max_bytes` bytes of the value as JSON text, or "a list of 7", for an error message: one
// line of ASCII.
std::string JsonExcerpt(const nlohmann::json& value, size_t max_bytes = 80);

}  // namespace ll
