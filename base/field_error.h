// Errors about input: which field, what was expected, what was found, and what to do.
//
// The parts travel as payloads of an absl::Status, so that the RPC edge can turn them into
// google.rpc.BadRequest and llctl into {code, field, message, hint}. The message alone is already a
// complete one-line sentence.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

struct FieldError {
  absl::string_view field;      // name as the user wrote it: a spec key, a flag or a path
  absl::string_view expected;   // "a positive number of tokens"
  absl::string_view found;      // "-1"
  absl::string_view hint = {};  // what to do; may be empty
};

// "FIELD: expected EXPECTED, found FOUND; HINT", with `code` (InvalidArgument unless given).
absl::Status MakeFieldError(const FieldError& error,
                            absl::StatusCode code = absl::StatusCode::kInvalidArgument);

// An error with a field and a free sentence, where expected/found do not fit.
absl::Status FieldStatus(absl::StatusCode code, absl::string_view field, absl::string_view message,
                         absl::string_view hint = {});

// Names and values that come out of files stand in messages: they must neither break the one line
// nor fill the screen. Control characters become '?', and 1000 bytes are kept.
std::string OneLine(absl::string_view text);
// `status` with such a message; code and payloads are kept. OK stays OK.
absl::Status OneLine(const absl::Status& status);

// The parts carried by `status`; empty where there are none.
std::string ErrorField(const absl::Status& status);
std::string ErrorHint(const absl::Status& status);
// Attaches field or hint to a status that has none yet (used when a status comes back over the
// wire).
void SetErrorField(absl::Status& status, absl::string_view field);
void SetErrorHint(absl::Status& status, absl::string_view hint);

// `status` with "CONTEXT: " before its message; code and payloads are kept. OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace ll
