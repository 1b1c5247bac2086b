// What outlives the coordinator's process: the shipped SQLite store on a simulated disk, or, on
// most seeds, the store in memory, which is several times as fast. Both fail in the same ways.
#pragma once

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "coordinator/store/mem_store.h"
#include "coordinator/store/store.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/world.h"

namespace ll::sim {

class Storage {
 public:
  Storage(World& world, bool sqlite, Bug bug);

  // As DriverOptions::open_store. The store must be gone before Restart.
  absl::StatusOr<std::unique_ptr<Store>> Open();

  // Called once a transaction has been committed.
  std::function<void(absl::Span<const Record>)> on_durable;
  // Called before a commit: the disk is full and nothing of it is to be found later.
  std::function<void(absl::Span<const Record>)> on_refused;

  // How likely each commit is one that the process does not survive; 0: none.
  void SetCrashRate(double rate) { crash_rate_ = rate; }
  // Single operations fail now and then.
  void SetUnreliable(bool unreliable) { unreliable_ = unreliable; }
  // For a while.
  void Break(DiskFault fault, absl::Duration length);
  void Slow(absl::Duration length) { slow_until_ = world_.now() + length; }

  // The coordinator's process has died; nothing that it does has an effect any more.
  bool dead() const { return dead_; }
  void Die();
  void Restart();
  // All content is lost, so that a run that is broken anyway can end.
  void Wipe();

  bool sqlite() const { return disk_ != nullptr; }
  // How long the syncs since the last call took.
  absl::Duration TakeDelay() { return std::exchange(delay_, absl::ZeroDuration()); }
  // Faults of single operations so far.
  int64_t strikes() const { return strikes_; }

 private:
  class Watched;
  absl::Status Commit(Store& store, absl::Span<const Record> records);
  absl::Status CommitToMemory(absl::Span<const Record> records);
  DiskFault NextFault(DiskOperation operation);
  // Whether the process dies here.
  bool DiesHere(const char* where, double rate);
  DiskFault Strike(DiskFault fault, const char* what);

  World& world_;
  const Bug bug_;
  MemStore memory_;
  std::unique_ptr<SimDisk> disk_;  // null: in memory
  double crash_rate_ = 0;
  bool unreliable_ = false, dead_ = false, bug_done_ = false;
  DiskFault broken_ = DiskFault::kNone;
  absl::Duration broken_until_, slow_until_, delay_;
  int64_t strikes_ = 0;
};

}  // namespace ll::sim
