// Keeps asking for the lease on a thread of its own, and tells who leads.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"
#include "coordinator/store/lease.h"

namespace ll {

// Thread-safe.
class Leadership {
 public:
  // `on_change` is called on this object's thread after the lease was gained or lost.
  Leadership(LeaseOptions options, std::unique_ptr<LeaseTable> table, Clock& clock,
             std::function<void()> on_change);
  ~Leadership();  // as Stop

  // Begins to ask. `address` is what clients of another coordinator are told.
  void Start(std::string address);
  // Gives up the lease, so that another takes it at once. Idempotent.
  void Stop();

  // OK: this coordinator leads. Otherwise Unavailable, with the leader's address where one is known
  // (base/leader_error.h) or why nobody can tell.
  absl::Status Check() const;
  // As above, and has led ever since `generation` was told.
  absl::Status Check(int64_t generation) const;
  bool leads() const { return Check().ok(); }
  int64_t generation() const;

  // This coordinator could not make use of its lead: another may try.
  void StepAside(absl::Duration pause);

 private:
  void Run();
  absl::Status CheckLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::unique_ptr<LeaseTable> table_;  // the thread's own
  Clock& clock_;
  const std::function<void()> on_change_;
  std::string address_;
  std::thread thread_;

  mutable absl::Mutex mu_;
  SteadyCondVar wake_;  // release_, stopping_
  Lease lease_ ABSL_GUARDED_BY(mu_);
  absl::Status last_ ABSL_GUARDED_BY(mu_);  // of the newest question
  bool asked_ ABSL_GUARDED_BY(mu_) = false;
  bool release_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

// The answer of a coordinator that does not lead. `leader` may be empty.
absl::Status NotLeaderError(const std::string& leader);

}  // namespace ll
