#include "tests/sim/storage.h"

#include <utility>

namespace ll::sim {

// The store as the driver has it: fails once its process is dead, and tells what became of commits.
class Storage::Watched : public Store {
 public:
  Watched(Storage& storage, std::unique_ptr<Store> store)
      : storage_(storage), store_(std::move(store)) {}

  absl::Status Commit(absl::Span<const Record> records) override {
    if (storage_.dead_) return absl::InternalError("the process is dead");
    if (!poisoned_.ok()) return poisoned_;
    const absl::Status status = storage_.Commit(*this, records);
    if (!status.ok() && status.code() != absl::StatusCode::kResourceExhausted) poisoned_ = status;
    return status;
  }
  absl::StatusOr<StoredState> LoadAll() override {
    if (storage_.dead_) return absl::InternalError("the process is dead");
    return inner().LoadAll();
  }
  absl::StatusOr<int64_t> RaiseTerm(int64_t above) override {
    if (storage_.dead_) return absl::InternalError("the process is dead");
    return inner().RaiseTerm(above);
  }
  std::string Description() const override { return "simulated"; }

  Store& inner() { return store_ == nullptr ? storage_.memory_ : *store_; }

 private:
  Storage& storage_;
  std::unique_ptr<Store> store_;  // null: the one in memory
  absl::Status poisoned_;
};

Storage::Storage(World& world, bool sqlite, Bug bug) : world_(world), bug_(bug) {
  if (sqlite) Wipe();
}

void Storage::Wipe() {
  memory_ = MemStore();
  if (!sqlite() && world_.now() > absl::ZeroDuration()) return;
  disk_ = std::make_unique<SimDisk>(world_.random);
  disk_->ignores_syncs = bug_ == Bug::kDiskIgnoresSyncs;
  disk_->faults = [this](DiskOperation operation) { return NextFault(operation); };
}

absl::StatusOr<std::unique_ptr<Store>> Storage::Open() {
  if (dead_) return absl::InternalError("the process is dead");
  std::unique_ptr<Store> store;
  if (sqlite()) {
    auto opened = OpenSqliteStore(disk_->ForSqlite(), "ll.db");
    if (!opened.ok()) return opened.status();
    store = *std::move(opened);
  }
  return std::make_unique<Watched>(*this, std::move(store));
}

void Storage::Break(DiskFault fault, absl::Duration length) {
  broken_ = fault;
  broken_until_ = world_.now() + length;
}

void Storage::Die() {
  dead_ = true;
  if (sqlite()) disk_->Die();
}

void Storage::Restart() {
  dead_ = false;
  if (!sqlite()) return;
  const bool power_cut = world_.Chance(0.5);
  if (power_cut) world_.Struck("power cut");
  const int64_t before = disk_->lost_changes();
  disk_->Restart(power_cut);
  if (disk_->lost_changes() > before) world_.Struck("power cut takes writes back");
}

bool Storage::DiesHere(const char* where, double rate) {
  if (dead_ || !world_.Chance(rate)) return false;
  world_.Struck(where);
  world_.Trace(where);
  Die();
  return true;
}

DiskFault Storage::Strike(DiskFault fault, const char* what) {
  ++strikes_;
  world_.Struck(what);
  return fault;
}

// Of one operation of SQLite; in memory a commit is one.
DiskFault Storage::NextFault(DiskOperation operation) {
  if (dead_) return DiskFault::kError;
  if (operation == DiskOperation::kSync && world_.now() < slow_until_) {
    world_.Struck("sync slow");
    delay_ += world_.Between(absl::Milliseconds(50), absl::Seconds(2));
  }
  if (sqlite() && DiesHere("coordinator dies within a commit", crash_rate_ / 20)) {
    return DiskFault::kDeath;
  }
  const bool broken = world_.now() < broken_until_;
  const bool writes = operation == DiskOperation::kWrite;
  if (writes && broken && broken_ == DiskFault::kFull) return Strike(DiskFault::kFull, "disk full");
  if (broken && broken_ == DiskFault::kError && world_.Chance(0.3))
    return Strike(DiskFault::kError, "disk error");
  if (!unreliable_ || !world_.Chance(sqlite() ? 0.0002 : 0.002)) return DiskFault::kNone;
  if (writes && world_.Chance(0.5)) return Strike(DiskFault::kFull, "disk full");
  return Strike(DiskFault::kError, "disk error");
}

absl::Status Storage::CommitToMemory(absl::Span<const Record> records) {
  NextFault(DiskOperation::kSync);  // slow, if at all
  switch (NextFault(DiskOperation::kWrite)) {
    case DiskFault::kFull:
      return absl::ResourceExhaustedError("disk full");
    case DiskFault::kError:
      // Nobody knows whether it is on the disk.
      if (world_.Chance(0.5)) memory_.Commit(records).IgnoreError();
      return absl::InternalError("disk error");
    default:
      return memory_.Commit(records);
  }
}

absl::Status Storage::Commit(Store& store, absl::Span<const Record> records) {
  if (DiesHere("coordinator dies before its commit", crash_rate_))
    return absl::InternalError("the process is dead");
  if (bug_ == Bug::kStoreDropsACommit && !bug_done_ && world_.now() > absl::Seconds(30)) {
    bug_done_ = true;
    return absl::OkStatus();
  }
  const absl::Status status =
      sqlite() ? static_cast<Watched&>(store).inner().Commit(records) : CommitToMemory(records);
  if (dead_) return absl::InternalError("the process is dead");
  if (status.code() == absl::StatusCode::kResourceExhausted) on_refused(records);
  if (!status.ok()) return status;
  on_durable(records);
  DiesHere("coordinator dies after its commit", crash_rate_);
  return status;
}

}  // namespace ll::sim
