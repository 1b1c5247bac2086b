#include "coordinator/store/sqlite_store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/store/codec.h"
#include "coordinator/store/migrations.h"
#include "coordinator/store/sqlite_util.h"
#include "coordinator/store/wal_rewrite.h"

namespace ll {
namespace {

// One prepared statement for each kind of write.
struct Writes {
  Statement put_submission, put_job, put_transition, delete_job, delete_submission,
      delete_old_transitions, delete_transitions, put_request, delete_request, put_worker,
      delete_worker, put_model, put_data, put_queue, put_schedule, delete_schedule,
      delete_schedule_runs, put_schedule_run, delete_schedule_run, begin, commit;
};

absl::StatusOr<Writes> PrepareWrites(sqlite3* db) {
  std::vector<Statement> made;
  for (const char* sql :
       {"INSERT OR REPLACE INTO submissions VALUES (?1, ?2, ?3, ?4)",
        // Another job's number is an error: its job_id would become NULL.
        "INSERT INTO jobs VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (sequence) DO UPDATE SET job_id ="
        " CASE WHEN job_id = ?2 THEN job_id END, state = ?3, body = ?4, result = ?5",
        "INSERT OR REPLACE INTO transitions VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        "DELETE FROM jobs WHERE sequence = ?1", "DELETE FROM submissions WHERE sequence = ?1",
        "DELETE FROM transitions WHERE sequence = ?1 AND number <= ?2",
        "DELETE FROM transitions WHERE sequence = ?1",
        "INSERT OR REPLACE INTO requests VALUES (?1, ?2, ?3, ?4, ?5)",
        "DELETE FROM requests WHERE time_ns = ?1 AND user = ?2 AND request_id = ?3",
        "INSERT OR REPLACE INTO workers VALUES (?1, ?2)", "DELETE FROM workers WHERE name = ?1",
        "INSERT OR REPLACE INTO models VALUES (?1, ?2, ?3, ?4)",
        "INSERT OR REPLACE INTO data VALUES (?1, ?2, ?3)",
        "INSERT OR REPLACE INTO queues VALUES (?1, ?2)",
        "INSERT OR REPLACE INTO schedules VALUES (?1, ?2, ?3, ?4, ?5)",
        "DELETE FROM schedules WHERE name = ?1", "DELETE FROM schedule_runs WHERE schedule = ?1",
        "INSERT OR REPLACE INTO schedule_runs VALUES (?1, ?2, ?3)",
        "DELETE FROM schedule_runs WHERE schedule = ?1 AND number = ?2", "BEGIN IMMEDIATE",
        "COMMIT"}) {
    LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql));
    made.push_back(std::move(statement));
  }
  auto next = made.begin();
  const auto take = [&next] { return std::move(*next++); };
  return Writes{take(), take(), take(), take(), take(), take(), take(),
                take(), take(), take(), take(), take(), take(), take(),
                take(), take(), take(), take(), take(), take(), take()};
}

// Applies one record inside the transaction under way.
struct Writer {
  Writes& w;

  absl::Status operator()(const PutSubmission& r) const {
    return w.put_submission.Run(r.sequence, Statement::AsBlob(r.payload->spec),
                                Statement::AsBlob(r.payload->resolved_spec),
                                Statement::AsBlob(r.payload->forecast));
  }
  absl::Status operator()(const PutJob& r) const {
    const std::string body = EncodeJob(r.job);
    return w.put_job.Run(r.job.sequence, r.job.id.value(), static_cast<int>(r.job.state), body,
                         Statement::AsBlob(r.job.result));
  }
  absl::Status operator()(const PutTransition& r) const {
    LL_RETURN_IF_ERROR(w.put_transition.Run(r.sequence, r.index, r.transition.time,
                                            static_cast<int>(r.transition.state),
                                            r.transition.epoch, r.transition.reason));
    const int64_t gone = r.index - static_cast<int64_t>(kMaxHistory);
    return gone < 0 ? absl::OkStatus() : w.delete_old_transitions.Run(r.sequence, gone);
  }
  absl::Status operator()(const DeleteJob& r) const {
    LL_RETURN_IF_ERROR(w.delete_submission.Run(r.sequence));
    LL_RETURN_IF_ERROR(w.delete_transitions.Run(r.sequence));
    return w.delete_job.Run(r.sequence);
  }
  absl::Status operator()(const PutRequest& r) const {
    const RequestRecord& q = r.request;
    return w.put_request.Run(q.time, q.user, q.request_id, q.body_sha256, q.job.value());
  }
  absl::Status operator()(const DeleteRequest& r) const {
    return w.delete_request.Run(r.time, r.user, r.request_id);
  }
  absl::Status operator()(const PutWorker& r) const {
    const std::string body = EncodeWorker(r.worker);
    return w.put_worker.Run(r.worker.name.value(), body);
  }
  absl::Status operator()(const DeleteWorker& r) const {
    return w.delete_worker.Run(r.worker.value());
  }
  absl::Status operator()(const PutModel& r) const {
    return w.put_model.Run(r.model.name, r.model.path, r.model.verified, r.model.config_json);
  }
  absl::Status operator()(const PutData& r) const {
    return w.put_data.Run(r.data.name, r.data.path, r.data.is_default);
  }
  absl::Status operator()(const PutQueue& r) const {
    const std::string body = EncodeQueue(r.queue);
    return w.put_queue.Run(r.queue.name, body);
  }
  absl::Status operator()(const PutSchedule& r) const {
    const std::string body = EncodeSchedule(r.schedule);
    const JobPayload& payload = *r.schedule.payload;
    return w.put_schedule.Run(r.schedule.name, body, Statement::AsBlob(payload.spec),
                              Statement::AsBlob(payload.resolved_spec),
                              Statement::AsBlob(payload.forecast));
  }
  absl::Status operator()(const DeleteSchedule& r) const {
    LL_RETURN_IF_ERROR(w.delete_schedule_runs.Run(r.schedule));
    return w.delete_schedule.Run(r.schedule);
  }
  absl::Status operator()(const PutScheduleRun& r) const {
    const std::string body = EncodeScheduleRun(r.run);
    return w.put_schedule_run.Run(r.schedule, r.run.number, body);
  }
  absl::Status operator()(const DeleteScheduleRun& r) const {
    return w.delete_schedule_run.Run(r.schedule, r.number);
  }
};

// Calls row(statement) for each row of the query.
template <typename F>
absl::Status ForEachRow(sqlite3* db, absl::string_view sql, F row) {
  LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql));
  while (true) {
    LL_ASSIGN_OR_RETURN(const bool more, statement.Next());
    if (!more) return absl::OkStatus();
    LL_RETURN_IF_ERROR(row(statement));
  }
}

absl::StatusOr<StoredState> LoadState(sqlite3* db);

class SqliteStore : public Store {
 public:
  SqliteStore(Db db, Writes writes) : db_(std::move(db)), writes_(std::move(writes)) {}
  ~SqliteStore() override {
    writes_.reset();  // statements before their database, the database before its lock
    db_.reset();
    if (lock_fd_ >= 0) close(lock_fd_);
  }
  void KeepLock(int fd) { lock_fd_ = fd; }

  absl::Status Commit(absl::Span<const Record> records) override {
    if (!poisoned_.ok()) return poisoned_;
    if (records.empty()) return absl::OkStatus();
    return InTransaction([&] {
      for (const Record& record : records) LL_RETURN_IF_ERROR(std::visit(Writer{*writes_}, record));
      return absl::OkStatus();
    });
  }

  absl::StatusOr<int64_t> RaiseTerm(int64_t above) override {
    if (!poisoned_.ok()) return poisoned_;
    LL_RETURN_IF_ERROR(InTransaction([&] {
      return Execute(db_.get(), absl::StrCat("UPDATE meta SET value = max(value, ", above,
                                             ") + 1 WHERE key = 'term'"));
    }));
    return QueryInt(db_.get(), "SELECT value FROM meta WHERE key = 'term'");
  }

  absl::Status Replace(absl::Span<const Record> records, absl::Time restored) override {
    if (!poisoned_.ok()) return poisoned_;
    return InTransaction([&] {
      for (const char* table : {"jobs", "submissions", "transitions", "requests", "workers",
                                "models", "data", "queues", "schedules", "schedule_runs"}) {
        LL_RETURN_IF_ERROR(Execute(db_.get(), absl::StrCat("DELETE FROM ", table)));
      }
      LL_RETURN_IF_ERROR(
          Execute(db_.get(), absl::StrCat("INSERT OR REPLACE INTO meta VALUES ('restored', ",
                                          absl::ToUnixNanos(restored), ")")));
      for (const Record& record : records) LL_RETURN_IF_ERROR(std::visit(Writer{*writes_}, record));
      return absl::OkStatus();
    });
  }

  absl::StatusOr<StoredState> LoadAll() override { return LoadState(db_.get()); }

  std::string Description() const override { return absl::StrCat("sqlite ", sqlite3_libversion()); }

 private:
  template <typename F>
  absl::Status InTransaction(F body) {
    absl::Status status = writes_->begin.Run();
    if (status.ok()) status = body();
    if (status.ok()) status = writes_->commit.Run();
    if (status.ok()) return status;
    // SQLite may have rolled back by itself.
    if (sqlite3_get_autocommit(db_.get()) == 0) {
      const absl::Status rollback = Execute(db_.get(), "ROLLBACK");
      if (!rollback.ok()) poisoned_ = rollback;
    }
    // After a failed write or sync nobody knows what reached the disk; only a full disk is
    // harmless.
    if (status.code() != absl::StatusCode::kResourceExhausted) poisoned_ = status;
    return status;
  }

  int lock_fd_ = -1;  // of the data folder
  Db db_;
  std::optional<Writes> writes_;
  absl::Status poisoned_;
};

absl::StatusOr<StoredState> LoadState(sqlite3* db) {
  StoredState state;
  LL_RETURN_IF_ERROR(
      ForEachRow(db, "SELECT value FROM meta WHERE key = 'restored'", [&](const Statement& row) {
        state.restored = row.TimeNs(0);
        return absl::OkStatus();
      }));
  LL_ASSIGN_OR_RETURN(const int64_t count, QueryInt(db, "SELECT count(*) FROM jobs"));
  state.jobs.reserve(count);
  LL_RETURN_IF_ERROR(ForEachRow(db,
                                "SELECT j.body, j.result, s.spec, s.resolved_spec, s.forecast FROM "
                                "jobs j JOIN submissions s USING (sequence) ORDER BY j.sequence",
                                [&](const Statement& row) -> absl::Status {
                                  LL_ASSIGN_OR_RETURN(Job job, DecodeJob(row.Bytes(0)));
                                  job.result = row.Bytes(1);
                                  job.payload = std::make_shared<JobPayload>(
                                      JobPayload{row.Bytes(2), row.Bytes(3), row.Bytes(4)});
                                  state.jobs.push_back(std::move(job));
                                  return absl::OkStatus();
                                }));
  if (static_cast<int64_t>(state.jobs.size()) != count)
    return absl::DataLossError("a job has no submission");
  auto job = state.jobs.begin();
  LL_RETURN_IF_ERROR(ForEachRow(
      db,
      "SELECT sequence, number, time_ns, state, epoch, reason FROM transitions ORDER BY sequence, "
      "number",
      [&](const Statement& row) {
        while (job != state.jobs.end() && job->sequence < row.Int(0)) ++job;
        if (job == state.jobs.end() || job->sequence != row.Int(0))
          return absl::DataLossError("a transition has no job");
        const bool recent = row.Int(1) >= job->transitions - static_cast<int64_t>(kMaxHistory);
        if (recent) {
          job->history.push_back(
              {row.TimeNs(2), static_cast<JobState>(row.Int(3)), row.Bytes(5), row.Int(4)});
        }
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(
      ForEachRow(db, "SELECT user, request_id, body_sha256, job_id, time_ns FROM requests",
                 [&](const Statement& row) {
                   state.requests.push_back({row.Bytes(0), row.Bytes(1), row.Bytes(2),
                                             JobId(row.Bytes(3)), row.TimeNs(4)});
                   return absl::OkStatus();
                 }));
  LL_RETURN_IF_ERROR(
      ForEachRow(db, "SELECT body FROM workers", [&](const Statement& row) -> absl::Status {
        LL_ASSIGN_OR_RETURN(Worker worker, DecodeWorker(row.Bytes(0)));
        state.workers.push_back(std::move(worker));
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(ForEachRow(
      db, "SELECT name, path, verified, config_json FROM models", [&](const Statement& row) {
        state.models.push_back({row.Bytes(0), row.Bytes(1), row.Int(2) != 0, row.Bytes(3)});
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(
      ForEachRow(db, "SELECT name, path, is_default FROM data", [&](const Statement& row) {
        state.data.push_back({row.Bytes(0), row.Bytes(1), row.Int(2) != 0});
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(
      ForEachRow(db, "SELECT body FROM queues", [&](const Statement& row) -> absl::Status {
        LL_ASSIGN_OR_RETURN(QueueRecord queue, DecodeQueue(row.Bytes(0)));
        state.queues.push_back(std::move(queue));
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(ForEachRow(
      db, "SELECT body, spec, resolved_spec, forecast FROM schedules",
      [&](const Statement& row) -> absl::Status {
        LL_ASSIGN_OR_RETURN(ScheduleRecord schedule, DecodeSchedule(row.Bytes(0)));
        schedule.payload =
            std::make_shared<JobPayload>(JobPayload{row.Bytes(1), row.Bytes(2), row.Bytes(3)});
        state.schedules.push_back(std::move(schedule));
        return absl::OkStatus();
      }));
  LL_RETURN_IF_ERROR(ForEachRow(
      db, "SELECT schedule, body FROM schedule_runs", [&](const Statement& row) -> absl::Status {
        LL_ASSIGN_OR_RETURN(ScheduleRun run, DecodeScheduleRun(row.Bytes(1)));
        state.schedule_runs.push_back({row.Bytes(0), std::move(run)});
        return absl::OkStatus();
      }));
  return state;
}

absl::Status CheckFileSystem(const std::string& data_dir) {
  struct statfs info;
  if (statfs(data_dir.c_str(), &info) != 0)
    return ErrnoStatus(errno, "stat file system of", data_dir);
  if (!IsNetworkFileSystem(static_cast<uint64_t>(info.f_type) & 0xffffffffu))
    return absl::OkStatus();
  return FieldStatus(
      absl::StatusCode::kFailedPrecondition, "data-dir",
      absl::StrCat(data_dir, " lies on a network file system, which SQLite cannot use safely"),
      "give --data-dir a folder on a local disk");
}

// Held until the descriptor is closed, so also after a kill -9 it never stays behind.
absl::StatusOr<int> LockFolder(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/lock");
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) {
    const absl::Status refused = ErrnoStatus(errno, "open", path);
    return FieldStatus(refused.code(), "data-dir", refused.message(),
                       "give a folder that this user may write: --data-dir");
  }
  if (flock(fd, LOCK_EX | LOCK_NB) == 0) return fd;
  const int error = errno;
  close(fd);
  if (error != EWOULDBLOCK) return ErrnoStatus(error, "lock", path);
  return FieldStatus(absl::StatusCode::kUnavailable, "data-dir",
                     absl::StrCat("another coordinator is running on ", data_dir),
                     "stop it, or give this one its own --data-dir");
}

absl::Status Damaged(absl::string_view how) {
  return FieldStatus(absl::StatusCode::kDataLoss, "",
                     absl::StrCat("the database is damaged: ", how),
                     "keep the folder, and put the last backup back (ll-coordinator restore)");
}

absl::StatusOr<Db> OpenDb(const std::string& path, const char* vfs) {
  LL_RETURN_IF_ERROR(RewriteWal(path, vfs));
  sqlite3* raw = nullptr;
  const int code =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, vfs);
  Db db(raw);
  if (code != SQLITE_OK)
    return raw == nullptr ? absl::InternalError("out of memory") : DbStatus(raw, "open database");
  // Somebody's sqlite3 shell may hold a read lock for a moment.
  sqlite3_busy_timeout(raw, 5000);
  const absl::StatusOr<std::string> checked = QueryText(raw, "PRAGMA quick_check(1)");
  if (absl::IsDataLoss(checked.status())) return Damaged(checked.status().message());
  LL_ASSIGN_OR_RETURN(const std::string check, checked);
  if (check != "ok") return Damaged(check);
  LL_ASSIGN_OR_RETURN(const std::string mode, QueryText(raw, "PRAGMA journal_mode=WAL"));
  if (mode != "wal")
    return absl::FailedPreconditionError(absl::StrCat("WAL mode is not available: ", mode));
  LL_RETURN_IF_ERROR(Execute(raw, "PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;"));
  LL_RETURN_IF_ERROR(Migrate(raw, AllMigrations()));
  return db;
}

absl::StatusOr<std::unique_ptr<SqliteStore>> OpenOn(const SqliteDisk& disk,
                                                    const std::string& path) {
  const auto open = [&]() -> absl::StatusOr<std::unique_ptr<SqliteStore>> {
    LL_ASSIGN_OR_RETURN(Db db, OpenDb(path, disk.vfs));
    LL_ASSIGN_OR_RETURN(Writes writes, PrepareWrites(db.get()));
    // Until then a power cut may bring back the journal of the file's first transaction, which
    // would undo it and all that came after.
    LL_RETURN_IF_ERROR(disk.sync_folder());
    return std::make_unique<SqliteStore>(std::move(db), std::move(writes));
  };
  auto store = open();
  if (!store.ok()) return Annotate(store.status(), path);
  return store;
}

}  // namespace

bool IsNetworkFileSystem(uint64_t f_type) {
  static constexpr uint64_t kTypes[] = {
      0x6969,      // NFS
      0xff534d42,  // CIFS
      0xfe534d42,  // SMB 2
      0x517b,      // SMB
      0x00c36400,  // Ceph
      0x0bd00bd0,  // Lustre
      0x47504653,  // GPFS
      0x19830326,  // BeeGFS
      0x5346414f,  // AFS
      0x564c,      // NCP
  };
  return std::find(std::begin(kTypes), std::end(kTypes), f_type) != std::end(kTypes);
}

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const std::string& data_dir) {
  if (!IsDirectory(data_dir)) {
    if (absl::Status made = MakeDirs(data_dir); !made.ok()) {
      return FieldStatus(made.code(), "data-dir", made.message(),
                         "give a folder on a local disk that this user may write: --data-dir");
    }
    if (chmod(data_dir.c_str(), 0700) != 0) return ErrnoStatus(errno, "chmod", data_dir);
  }
  LL_RETURN_IF_ERROR(CheckFileSystem(data_dir));
  LL_ASSIGN_OR_RETURN(const int lock_fd, LockFolder(data_dir));
  auto store =
      OpenOn({nullptr, [&] { return SyncDir(data_dir); }}, absl::StrCat(data_dir, "/ll.db"));
  if (!store.ok()) {
    close(lock_fd);
    if (!absl::IsResourceExhausted(store.status())) return store.status();
    return FieldStatus(store.status().code(), "data-dir", store.status().message(),
                       "make room on that disk, or give --data-dir a folder on another");
  }
  (*store)->KeepLock(lock_fd);
  return std::unique_ptr<Store>(*std::move(store));
}

absl::StatusOr<StoreSnapshot> ReadSqlite(const std::string& data_dir) {
  const std::string path = absl::StrCat(data_dir, "/ll.db");
  if (!FileExists(path)) {
    return FieldStatus(absl::StatusCode::kNotFound, "data-dir",
                       absl::StrCat("there is no store at ", path),
                       "give the coordinator's own --data-dir, or --store");
  }
  sqlite3* raw = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE, nullptr);
  const Db source(raw);
  if (code != SQLITE_OK)
    return raw == nullptr ? absl::InternalError("out of memory") : DbStatus(raw, "open database");
  sqlite3_busy_timeout(raw, 5000);
  sqlite3* memory = nullptr;
  if (sqlite3_open(":memory:", &memory) != SQLITE_OK)
    return absl::ResourceExhaustedError("out of memory");
  const Db copy(memory);
  sqlite3_backup* backup = sqlite3_backup_init(memory, "main", raw, "main");
  if (backup == nullptr) return DbStatus(memory, "backup");
  // All pages in one step: of one moment.
  const int step = sqlite3_backup_step(backup, -1);
  if (sqlite3_backup_finish(backup) != SQLITE_OK || step != SQLITE_DONE)
    return Annotate(DbStatus(memory, "backup"), path);
  StoreSnapshot out;
  const absl::Status migrated =
      Migrate(memory, AllMigrations());  // of an earlier version: the copy
  if (!migrated.ok()) return Annotate(migrated, path);
  LL_ASSIGN_OR_RETURN(out.state, LoadState(memory));
  LL_ASSIGN_OR_RETURN(out.term, QueryInt(memory, "SELECT value FROM meta WHERE key = 'term'"));
  return out;
}

absl::StatusOr<std::unique_ptr<Store>> OpenSqliteStore(const SqliteDisk& disk,
                                                       const std::string& path) {
  LL_ASSIGN_OR_RETURN(std::unique_ptr<SqliteStore> store, OpenOn(disk, path));
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace ll
