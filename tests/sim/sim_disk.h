// A disk for SQLite that lives in memory and fails as disks do: what was written stays in a cache
// until it is synced, a power cut keeps an arbitrary part of that, down to single sectors, and
// every operation may be answered with an error. One sqlite3_vfs a disk; shared memory (WAL's
// index) and locks belong to the process and are gone after its death.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/ids.h"
#include "coordinator/store/sqlite_store.h"

namespace ll::sim {

enum class DiskFault {
  kNone,
  kError,  // EIO. Of a sync: what was to be written is either on the disk or never will be
  kFull,   // ENOSPC, after a part of the write
  kDeath,  // the process dies within the operation; everything fails until Restart
};

enum class DiskOperation { kWrite, kSync, kTruncate, kDelete };

// Not thread-safe; several disks may be used on several threads.
class SimDisk {
 public:
  // `random` outlives the disk.
  explicit SimDisk(Random& random);
  ~SimDisk();  // after every database on it is closed
  SimDisk(const SimDisk&) = delete;
  SimDisk& operator=(const SimDisk&) = delete;

  // For OpenSqliteStore.
  SqliteDisk ForSqlite() {
    return {name_.c_str(), [this] { return SyncFolder(); }};
  }

  // Asked before every operation that changes something; none: all go well.
  std::function<DiskFault(DiskOperation)> faults;
  // Syncs that do nothing and say OK: a mistake that must be noticed.
  bool ignores_syncs = false;

  // The process is dead: everything fails from now on.
  void Die() { dead_ = true; }
  // The next process, once every database is closed. After a power cut only what was synced is sure
  // to be there; without one the cache has survived.
  void Restart(bool power_cut);

  int64_t syncs() const { return syncs_; }
  // Changes that a power cut or a failed sync took back, wholly or in part.
  int64_t lost_changes() const { return lost_changes_; }

 private:
  struct Change {
    int64_t offset = 0;
    std::string bytes;       // written there
    bool truncates = false;  // the file ends at `offset`
  };
  struct File {
    std::string cached, durable;
    std::vector<Change> unsynced;
    std::vector<std::unique_ptr<char[]>> shared_memory;  // regions of WAL's index
  };
  using FilePtr = std::shared_ptr<File>;
  struct Handle;
  struct Io;  // SQLite's methods

  absl::Status SyncFolder();
  int Ask(DiskOperation operation, int error);
  int Write(File& file, const char* bytes, int count, int64_t offset);
  int Sync(const FilePtr& file, const std::string& name);
  int Truncate(File& file, int64_t size);
  int Delete(const std::string& name, bool sync);
  void Settle(File& file);  // a part of what was not synced gets to the disk
  void ApplyPart(File& file, const Change& change);

  Random& random_;
  const std::string name_;
  sqlite3_vfs vfs_ = {};
  std::map<std::string, FilePtr> cached_names_, durable_names_;
  bool dead_ = false;
  int last_error_ = 0;
  int open_files_ = 0;
  int64_t syncs_ = 0, lost_changes_ = 0;
};

}  // namespace ll::sim
