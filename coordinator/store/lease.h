// Which of several coordinators leads: a lease with a holder, an address and an end, kept in a
// place all of them see. Decisions only; the place is a LeaseTable, the thread is Leadership's.
//
// The table decides by its own clock. A holder counts its own time from before it asked, with a
// margin, so that it has stopped taking itself for the leader before the table can give the lease
// to another: a coordinator that was stopped, or is cut off from the table, steps down by itself.
// Writes do not rest on that: each transaction of the store checks holder and term in the database.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ll {

struct LeaseOptions {
  absl::Duration length = absl::Seconds(2);
  // The holder asks again after `renew`, others after `poll` or when the lease ends.
  absl::Duration renew = absl::Milliseconds(500);
  absl::Duration poll = absl::Milliseconds(200);
  // Of the length; what the clocks of coordinator and table may differ in running.
  double margin = 0.2;
};

struct LeaseAnswer {
  bool mine = false;    // taken or renewed by this question
  std::string address;  // otherwise the holder's
  absl::Duration ends_in = absl::ZeroDuration();
};

// Not thread-safe; each call ends within a second or two.
class LeaseTable {
 public:
  virtual ~LeaseTable() = default;
  // Takes the lease where it is free or has ended, renews one's own. Unavailable: nobody can tell.
  virtual absl::StatusOr<LeaseAnswer> Ask(const std::string& address) = 0;
  // Gives one's own lease up at once.
  virtual void Release() = 0;
};

// What a coordinator knows of the lease. Pure. Times are steady. Not thread-safe.
class Lease {
 public:
  explicit Lease(LeaseOptions options) : options_(options) {}

  // The answer to a question that was asked at `asked` and came back at `now`.
  void OnAnswer(const LeaseAnswer& answer, absl::Duration asked, absl::Duration now);
  void OnNoAnswer(absl::Duration now) { next_ = now + options_.poll; }
  // Leads no more and does not ask for `pause`.
  void StepAside(absl::Duration now, absl::Duration pause);

  bool Leads(absl::Duration now) const { return now < until_; }
  // Counts the times that the lease was gained: what one lead loaded is of no use to the next.
  int64_t generation() const { return generation_; }
  absl::Duration next_question() const { return next_; }
  // Of the leader, as far as known; "" for none or for this coordinator.
  const std::string& leader() const { return leader_; }

 private:
  const LeaseOptions options_;
  absl::Duration until_ = -absl::InfiniteDuration();
  absl::Duration next_ = -absl::InfiniteDuration();
  int64_t generation_ = 0;
  std::string leader_;
};

}  // namespace ll
