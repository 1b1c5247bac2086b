// A backup of a store: one file of JSON lines that any store can be restored from.
//
//   {"format":"ll-backup","version":1,"created":"2026-…Z","store":"sqlite 3.40.1","term":7}
//   {"job":{…},"history":[[time_ns,state,epoch,"reason"]],"spec":"…",…}     and so on, one a record
//   {"sha256":"…","lines":N}                                                of all lines before
//
// Text of others and bytes are base64. Durable on the disk, and readable by its owner alone (it
// holds what jobs hold), before it has its name.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/store/store.h"

namespace ll {

struct Backup {
  StoreSnapshot snapshot;
  absl::Time created;
  std::string store;  // what it was made of, for people
};

std::string EncodeBackup(const Backup& backup);
// DataLoss: not a whole backup, or changed since; FailedPrecondition: a newer program's.
absl::StatusOr<Backup> DecodeBackup(absl::string_view text);

// Everything of `state` as records, in an order that a store takes.
std::vector<Record> RecordsOf(const StoredState& state);
// Whether nothing was ever kept there.
bool IsEmpty(const StoredState& state);

// What a coordinator may go on from: attempts that were under way have ended, every unfinished
// job's next epoch is above all that may have been given out. Errors: the state contradicts itself.
absl::StatusOr<StoredState> Restored(const Backup& backup, absl::Time now);

}  // namespace ll
