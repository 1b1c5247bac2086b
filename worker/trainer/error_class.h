// Why the trainer ends, as the agent understands it: the class in the `error` event and the exit
// code.
#pragma once

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

enum class ErrorClass { kUser, kInfrastructure, kCapacity, kOutOfMemory, kNotANumber };

// Exit code of a run that stopped, as ordered, after writing a checkpoint.
inline constexpr int kExitStopped = 10;

// "user", "infrastructure", "capacity", "oom", "nan".
absl::string_view ErrorClassName(ErrorClass error_class);
// 20, 30, 31, 40, 50.
int ExitCodeOf(ErrorClass error_class);

// Says so on the status where its code alone would mean another class.
absl::Status WithErrorClass(absl::Status status, ErrorClass error_class);
// The class given by WithErrorClass, else the code's: what the caller wrote is kUser, lack of
// memory kOutOfMemory, all else kInfrastructure. `status` is not OK.
ErrorClass ErrorClassOf(const absl::Status& status);

// An error that follows from what became of another rank of the gang, of class kInfrastructure: it
// says nothing against this rank or its host.
absl::Status CausedByRank(absl::Status status, int rank);
std::optional<int> CausingRankOf(const absl::Status& status);

}  // namespace ll
