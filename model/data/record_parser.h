// The raw text of one record to a Record.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/data/raw_reader.h"
#include "model/data/record.h"

namespace ll {

// "text", "instruction/output", "input/output" or "messages", for messages to people.
absl::string_view KindName(Record::Kind kind);

// Replaces bytes that are not UTF-8 by U+FFFD and says whether there were any, or refuses them.
enum class InvalidUtf8 { kRefuse, kReplace };

// A text record (or a part of one), or an object by the first of these that fits: "messages" or
// "conversations" (a list of {role, content} or {from, value}), "instruction" and "output" (with or
// without "input"), "input" and "output", "text". Other members are ignored. `raw` is consumed.
// `replaced` becomes true where bytes were. Errors begin with "FILE:LINE: ": invalid JSON or UTF-8,
// a member that is missing or not a text, an unknown role, no messages, text of white space alone.
// Thread-safe.
absl::StatusOr<Record> ParseRecord(RawRecord&& raw, const std::string& file, InvalidUtf8 policy,
                                   bool& replaced);

// `field` of an error in a record.
std::string RecordPlace(const std::string& file, int64_t line);

}  // namespace ll
