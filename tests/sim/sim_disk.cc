#include "tests/sim/sim_disk.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <new>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace ll::sim {
namespace {

// What a disk writes as a whole or not at all.
constexpr int64_t kSectorBytes = 512;

std::string NextName() {
  static std::atomic<int64_t> count{0};
  return absl::StrCat("sim-disk-", ++count);
}

void Apply(std::string& content, int64_t offset, const char* bytes, int64_t count) {
  const size_t end = static_cast<size_t>(offset + count);
  if (content.size() < end) content.resize(end, '\0');
  std::memcpy(content.data() + offset, bytes, static_cast<size_t>(count));
}

}  // namespace

struct SimDisk::Handle {
  sqlite3_file base;
  SimDisk* disk;
  FilePtr file;
  std::string name;  // empty: a temporary file
};

// SQLite's C interface; what each function must do stands at sqlite.org/c3ref/io_methods.html.
struct SimDisk::Io {
  static Handle& Of(sqlite3_file* file) { return *reinterpret_cast<Handle*>(file); }
  static SimDisk& Of(sqlite3_vfs* vfs) { return *static_cast<SimDisk*>(vfs->pAppData); }

  static int Close(sqlite3_file* file) {
    --Of(file).disk->open_files_;
    Of(file).~Handle();
    return SQLITE_OK;
  }
  static int Read(sqlite3_file* file, void* out, int count, sqlite3_int64 offset) {
    if (Of(file).disk->dead_) return SQLITE_IOERR_READ;
    const std::string& content = Of(file).file->cached;
    const int64_t there =
        std::clamp<int64_t>(static_cast<int64_t>(content.size()) - offset, 0, count);
    if (there > 0) std::memcpy(out, content.data() + offset, static_cast<size_t>(there));
    if (there == count) return SQLITE_OK;
    std::memset(static_cast<char*>(out) + there, 0, static_cast<size_t>(count - there));
    return SQLITE_IOERR_SHORT_READ;
  }
  static int Write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 offset) {
    return Of(file).disk->Write(*Of(file).file, static_cast<const char*>(bytes), count, offset);
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    return Of(file).disk->Truncate(*Of(file).file, size);
  }
  static int Sync(sqlite3_file* file, int) {
    return Of(file).disk->Sync(Of(file).file, Of(file).name);
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    if (Of(file).disk->dead_) return SQLITE_IOERR_FSTAT;
    *size = static_cast<sqlite3_int64>(Of(file).file->cached.size());
    return SQLITE_OK;
  }
  // One connection at a time uses a database here, as in the coordinator.
  static int Lock(sqlite3_file*, int) { return SQLITE_OK; }
  static int Unlock(sqlite3_file*, int) { return SQLITE_OK; }
  static int CheckReservedLock(sqlite3_file*, int* reserved) {
    *reserved = 0;
    return SQLITE_OK;
  }
  static int FileControl(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  // As SQLite's own on Linux.
  static int SectorSize(sqlite3_file*) { return 4096; }
  static int DeviceCharacteristics(sqlite3_file*) { return SQLITE_IOCAP_POWERSAFE_OVERWRITE; }
  static int ShmMap(sqlite3_file* file, int region, int bytes, int extend, void volatile** out) {
    auto& regions = Of(file).file->shared_memory;
    *out = nullptr;
    if (static_cast<size_t>(region) >= regions.size() && extend == 0) return SQLITE_OK;
    while (static_cast<size_t>(region) >= regions.size())
      regions.push_back(std::make_unique<char[]>(static_cast<size_t>(bytes)));
    *out = regions[region].get();
    return SQLITE_OK;
  }
  static int ShmLock(sqlite3_file*, int, int, int) { return SQLITE_OK; }
  static void ShmBarrier(sqlite3_file*) {}
  static int ShmUnmap(sqlite3_file* file, int) {
    Of(file).file->shared_memory.clear();
    return SQLITE_OK;
  }

  static int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags,
                  int* out_flags) {
    static const sqlite3_io_methods kMethods = {2,
                                                Close,
                                                Read,
                                                Write,
                                                Truncate,
                                                Sync,
                                                FileSize,
                                                Lock,
                                                Unlock,
                                                CheckReservedLock,
                                                FileControl,
                                                SectorSize,
                                                DeviceCharacteristics,
                                                ShmMap,
                                                ShmLock,
                                                ShmBarrier,
                                                ShmUnmap,
                                                nullptr,
                                                nullptr};
    SimDisk& disk = Of(vfs);
    out->pMethods = nullptr;
    if (disk.dead_) return SQLITE_CANTOPEN;
    FilePtr file;
    if (name == nullptr) {
      file = std::make_shared<File>();
    } else if (auto found = disk.cached_names_.find(name); found != disk.cached_names_.end()) {
      file = found->second;
    } else if ((flags & SQLITE_OPEN_CREATE) != 0) {
      file = disk.cached_names_[name] = std::make_shared<File>();
    } else {
      return SQLITE_CANTOPEN;
    }
    new (out) Handle{{&kMethods}, &disk, std::move(file), name == nullptr ? "" : name};
    ++disk.open_files_;
    if (out_flags != nullptr) *out_flags = flags;
    return SQLITE_OK;
  }
  static int Delete(sqlite3_vfs* vfs, const char* name, int sync) {
    return Of(vfs).Delete(name, sync != 0);
  }
  static int Access(sqlite3_vfs* vfs, const char* name, int, int* out) {
    if (Of(vfs).dead_) return SQLITE_IOERR_ACCESS;
    *out = Of(vfs).cached_names_.count(name) > 0;
    return SQLITE_OK;
  }
  static int FullPathname(sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  }
  static int Randomness(sqlite3_vfs* vfs, int count, char* out) {
    for (int i = 0; i < count; ++i) out[i] = static_cast<char>(Of(vfs).random_.Next());
    return count;
  }
  static int Sleep(sqlite3_vfs*, int microseconds) { return microseconds; }
  static int CurrentTime(sqlite3_vfs*, double* julian_day) {
    *julian_day = 2440587.5;
    return SQLITE_OK;
  }
  static int GetLastError(sqlite3_vfs* vfs, int, char*) { return Of(vfs).last_error_; }
};

SimDisk::SimDisk(Random& random) : random_(random), name_(NextName()) {
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(Handle);
  vfs_.mxPathname = 256;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = Io::Open;
  vfs_.xDelete = Io::Delete;
  vfs_.xAccess = Io::Access;
  vfs_.xFullPathname = Io::FullPathname;
  vfs_.xRandomness = Io::Randomness;
  vfs_.xSleep = Io::Sleep;
  vfs_.xCurrentTime = Io::CurrentTime;
  vfs_.xGetLastError = Io::GetLastError;
  LL_CHECK(sqlite3_vfs_register(&vfs_, /*makeDflt=*/0) == SQLITE_OK);
}

SimDisk::~SimDisk() { sqlite3_vfs_unregister(&vfs_); }

int SimDisk::Ask(DiskOperation operation, int error) {
  DiskFault fault = dead_ || !faults ? DiskFault::kNone : faults(operation);
  if (fault == DiskFault::kDeath) dead_ = true;
  if (dead_) fault = DiskFault::kError;
  last_error_ = fault == DiskFault::kError ? EIO : fault == DiskFault::kFull ? ENOSPC : 0;
  if (fault == DiskFault::kFull) return SQLITE_FULL;
  return fault == DiskFault::kNone ? SQLITE_OK : error;
}

int SimDisk::Write(File& file, const char* bytes, int count, int64_t offset) {
  const bool was_dead = dead_;
  const int answer = Ask(DiskOperation::kWrite, SQLITE_IOERR_WRITE);
  if (was_dead) return answer;
  // A write that fails has got somewhere.
  if (answer != SQLITE_OK)
    count = static_cast<int>(random_.Below(static_cast<uint64_t>(count) + 1));
  if (count > 0) {
    Apply(file.cached, offset, bytes, count);
    file.unsynced.push_back({offset, std::string(bytes, static_cast<size_t>(count)), false});
  }
  return answer;
}

int SimDisk::Truncate(File& file, int64_t size) {
  if (const int answer = Ask(DiskOperation::kTruncate, SQLITE_IOERR_TRUNCATE); answer != SQLITE_OK)
    return answer;
  file.cached.resize(static_cast<size_t>(size), '\0');
  file.unsynced.push_back({size, "", true});
  return SQLITE_OK;
}

int SimDisk::Sync(const FilePtr& file, const std::string& name) {
  const bool was_dead = dead_;
  const int answer = Ask(DiskOperation::kSync, SQLITE_IOERR_FSYNC);
  if (was_dead) return answer;
  if (answer != SQLITE_OK) {
    // The kernel gives up what it could not write and the next sync says nothing of it; of a
    // process that dies here the rest is settled by what comes next.
    if (!dead_) Settle(*file);
    return answer;
  }
  ++syncs_;
  if (ignores_syncs) return SQLITE_OK;
  for (const Change& change : file->unsynced) {
    if (change.truncates) {
      file->durable.resize(static_cast<size_t>(change.offset), '\0');
    } else {
      Apply(file->durable, change.offset, change.bytes.data(),
            static_cast<int64_t>(change.bytes.size()));
    }
  }
  file->unsynced.clear();
  if (!name.empty()) durable_names_[name] = file;
  return SQLITE_OK;
}

int SimDisk::Delete(const std::string& name, bool sync) {
  if (cached_names_.count(name) == 0)
    return dead_ ? SQLITE_IOERR_DELETE : SQLITE_IOERR_DELETE_NOENT;
  if (const int answer = Ask(DiskOperation::kDelete, SQLITE_IOERR_DELETE); answer != SQLITE_OK)
    return answer;
  cached_names_.erase(name);
  if (sync) durable_names_.erase(name);
  return SQLITE_OK;
}

absl::Status SimDisk::SyncFolder() {
  if (Ask(DiskOperation::kSync, SQLITE_IOERR_DIR_FSYNC) != SQLITE_OK)
    return absl::InternalError("the folder cannot be synced");
  ++syncs_;
  if (!ignores_syncs) durable_names_ = cached_names_;
  return absl::OkStatus();
}

void SimDisk::ApplyPart(File& file, const Change& change) {
  const auto size = static_cast<int64_t>(change.bytes.size());
  for (int64_t at = 0; at < size;) {
    const int64_t to = std::min(
        size, (change.offset + at) / kSectorBytes * kSectorBytes + kSectorBytes - change.offset);
    if (random_.Below(2) == 0)
      Apply(file.durable, change.offset + at, change.bytes.data() + at, to - at);
    at = to;
  }
}

void SimDisk::Settle(File& file) {
  // Nothing, everything and each for itself are all likely; so is a torn write.
  const uint64_t luck = random_.Below(4);
  for (const Change& change : file.unsynced) {
    const bool kept = luck == 1 || (luck >= 2 && random_.Below(2) == 0);
    if (!kept) ++lost_changes_;
    if (kept && change.truncates) {
      file.durable.resize(static_cast<size_t>(change.offset), '\0');
    } else if (kept) {
      Apply(file.durable, change.offset, change.bytes.data(),
            static_cast<int64_t>(change.bytes.size()));
    } else if (luck == 3) {
      ApplyPart(file, change);
    }
  }
  file.unsynced.clear();
}

void SimDisk::Restart(bool power_cut) {
  LL_CHECK(open_files_ == 0);
  dead_ = false;
  for (auto& [name, file] : cached_names_) file->shared_memory.clear();
  if (!power_cut) return;
  std::set<std::string> names;
  for (const auto* table : {&cached_names_, &durable_names_}) {
    for (const auto& [name, file] : *table) names.insert(name);
  }
  std::map<std::string, FilePtr> after;
  for (const std::string& name : names) {
    const auto cached = cached_names_.find(name), durable = durable_names_.find(name);
    // A folder's entry that was not synced may be there or not.
    const bool same = cached != cached_names_.end() && durable != durable_names_.end() &&
                      cached->second == durable->second;
    const bool newer = same || random_.Below(2) == 0;
    if (newer && cached != cached_names_.end()) after[name] = cached->second;
    if (!newer && durable != durable_names_.end()) after[name] = durable->second;
  }
  for (auto& [name, file] : after) {
    Settle(*file);
    file->cached = file->durable;
  }
  cached_names_ = durable_names_ = std::move(after);
}

}  // namespace ll::sim
