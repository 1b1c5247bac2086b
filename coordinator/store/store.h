// Where decisions become durable. One interface, several databases.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "coordinator/core/records.h"

namespace ll {

// Not thread-safe: the driver's thread owns it.
class Store {
 public:
  virtual ~Store() = default;

  // Writes all records in one transaction, in order, and returns when they are on the disk. Group
  // commit is the caller's: give the records of several steps at once. ResourceExhausted: the disk
  // is full, nothing was written, a later call may succeed. After any other error nobody knows
  // whether all or nothing of it is on the disk, so the store refuses further commits until it is
  // opened again; the same holds for a process that dies within this call.
  virtual absl::Status Commit(absl::Span<const Record> records) = 0;

  virtual absl::StatusOr<StoredState> LoadAll() = 0;

  // Raises the leader generation by one, durably, and returns it. Once at every start, before
  // anything is sent.
  virtual absl::StatusOr<int64_t> RaiseTerm() = 0;

  // For people: "sqlite 3.40.1".
  virtual std::string Description() const = 0;
};

}  // namespace ll
