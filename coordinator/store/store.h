// Where decisions become durable. One interface, several databases.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
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

  // Raises the leader generation, durably, and returns it: the one after the stored one, or after
  // `above` where that is higher. Called each time the store was opened, before LoadAll: what an
  // earlier opener has under way is then either in or refused.
  virtual absl::StatusOr<int64_t> RaiseTerm(int64_t above = 0) = 0;

  // As Commit, but everything that was there before goes, and LoadAll tells from then on that the
  // store was put back at `restored`. Records of a whole store in one transaction.
  virtual absl::Status Replace(absl::Span<const Record> records, absl::Time restored) {
    return absl::UnimplementedError("this store cannot be put back");
  }

  // Whether what was loaded is still the newest truth, as far as can be told without I/O. An error:
  // another coordinator may have taken over; this store writes no more.
  virtual absl::Status Check() const { return absl::OkStatus(); }

  // For people: "sqlite 3.40.1".
  virtual std::string Description() const = 0;
};

// Everything at one moment.
struct StoreSnapshot {
  StoredState state;
  int64_t term = 0;
};

}  // namespace ll
