#include "coordinator/store/postgres_store.h"

#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/store/codec.h"
#include "coordinator/store/leadership.h"
#include "coordinator/store/pg_connection.h"
#include "coordinator/store/postgres_schema.h"

namespace ll {
namespace {

constexpr absl::Duration kConnectPatience = absl::Seconds(2);
constexpr absl::Duration kLoadPatience = absl::Minutes(1);
constexpr char kStoreApplication[] = "ll-coordinator store";
constexpr char kLeaseApplication[] = "ll-coordinator lease";

enum Write {
  kPutSubmission,
  kPutJob,
  kPutTransition,
  kDeleteOldTransitions,
  kDeleteJob,
  kDeleteSubmission,
  kDeleteTransitions,
  kPutRequest,
  kDeleteRequest,
  kPutWorker,
  kDeleteWorker,
  kPutModel,
  kPutData,
  kPutQueue,
  kPutSchedule,
  kDeleteSchedule,
  kDeleteScheduleRuns,
  kPutScheduleRun,
  kDeleteScheduleRun,
  kCheckLeader,
  kSetRestored,
  kClear,  // and the following ones
};
constexpr int kTables = 10;

constexpr const char* kWrites[] = {
    "INSERT INTO submissions VALUES ($1, $2, $3, $4) ON CONFLICT (job_id) DO UPDATE SET spec = $2, "
    "resolved_spec = $3, forecast = $4",
    "INSERT INTO jobs VALUES ($1, $2, $3, $4, $5) ON CONFLICT (job_id) DO UPDATE SET state = $3, "
    "body = $4, result = $5",
    "INSERT INTO transitions VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (job_id, number) DO "
    "UPDATE SET time_ns = $3, state = $4, epoch = $5, reason = $6",
    "DELETE FROM transitions WHERE job_id = $1 AND number <= $2",
    "DELETE FROM jobs WHERE job_id = $1",
    "DELETE FROM submissions WHERE job_id = $1",
    "DELETE FROM transitions WHERE job_id = $1",
    "INSERT INTO requests VALUES ($1, $2, $3, $4, $5) ON CONFLICT (user_name, request_id) DO "
    "UPDATE SET body_sha256 = $3, job_id = $4, time_ns = $5",
    "DELETE FROM requests WHERE user_name = $1 AND request_id = $2",
    "INSERT INTO workers VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET body = $2",
    "DELETE FROM workers WHERE name = $1",
    "INSERT INTO models VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO UPDATE SET path = $2, "
    "verified = $3, config_json = $4",
    "INSERT INTO data VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET path = $2, is_default = "
    "$3",
    "INSERT INTO queues VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET body = $2",
    "INSERT INTO schedules VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET body = $2, "
    "spec = $3, resolved_spec = $4, forecast = $5",
    "DELETE FROM schedules WHERE name = $1",
    "DELETE FROM schedule_runs WHERE schedule = $1",
    "INSERT INTO schedule_runs VALUES ($1, $2, $3) ON CONFLICT (schedule, number) DO UPDATE SET "
    "body = $3",
    "DELETE FROM schedule_runs WHERE schedule = $1 AND number = $2",
    "SELECT check_leader($1, $2)",
    "INSERT INTO meta VALUES ('restored', $1) ON CONFLICT (key) DO UPDATE SET value = $1",
    "DELETE FROM jobs",
    "DELETE FROM submissions",
    "DELETE FROM transitions",
    "DELETE FROM requests",
    "DELETE FROM workers",
    "DELETE FROM models",
    "DELETE FROM data",
    "DELETE FROM queues",
    "DELETE FROM schedules",
    "DELETE FROM schedule_runs",
};
static_assert(std::size(kWrites) == kClear + kTables);

// Appends the statements of one record.
struct PgWriter {
  std::vector<PgStatement>& out;

  template <typename... Args>
  void Add(Write write, const Args&... args) const {
    out.push_back({write, PgParams(args...)});
  }

  void operator()(const PutSubmission& r) const {
    Add(kPutSubmission, r.job.value(), r.payload->spec, r.payload->resolved_spec,
        r.payload->forecast);
  }
  void operator()(const PutJob& r) const {
    Add(kPutJob, r.job.id.value(), r.job.sequence, static_cast<int>(r.job.state), EncodeJob(r.job),
        r.job.result);
  }
  void operator()(const PutTransition& r) const {
    const Transition& t = r.transition;
    Add(kPutTransition, r.job.value(), r.index, t.time, static_cast<int>(t.state), t.epoch,
        t.reason);
    if (const int64_t gone = r.index - static_cast<int64_t>(kMaxHistory); gone >= 0)
      Add(kDeleteOldTransitions, r.job.value(), gone);
  }
  void operator()(const DeleteJob& r) const {
    Add(kDeleteSubmission, r.job.value());
    Add(kDeleteTransitions, r.job.value());
    Add(kDeleteJob, r.job.value());
  }
  void operator()(const PutRequest& r) const {
    const RequestRecord& q = r.request;
    Add(kPutRequest, q.user, q.request_id, q.body_sha256, q.job.value(), q.time);
  }
  void operator()(const DeleteRequest& r) const { Add(kDeleteRequest, r.user, r.request_id); }
  void operator()(const PutWorker& r) const {
    Add(kPutWorker, r.worker.name.value(), EncodeWorker(r.worker));
  }
  void operator()(const DeleteWorker& r) const { Add(kDeleteWorker, r.worker.value()); }
  void operator()(const PutModel& r) const {
    Add(kPutModel, r.model.name, r.model.path, r.model.verified, r.model.config_json);
  }
  void operator()(const PutData& r) const {
    Add(kPutData, r.data.name, r.data.path, r.data.is_default);
  }
  void operator()(const PutQueue& r) const { Add(kPutQueue, r.queue.name, EncodeQueue(r.queue)); }
  void operator()(const PutSchedule& r) const {
    const JobPayload& payload = *r.schedule.payload;
    Add(kPutSchedule, r.schedule.name, EncodeSchedule(r.schedule), payload.spec,
        payload.resolved_spec, payload.forecast);
  }
  void operator()(const DeleteSchedule& r) const {
    Add(kDeleteScheduleRuns, r.schedule);
    Add(kDeleteSchedule, r.schedule);
  }
  void operator()(const PutScheduleRun& r) const {
    Add(kPutScheduleRun, r.schedule, r.run.number, EncodeScheduleRun(r.run));
  }
  void operator()(const DeleteScheduleRun& r) const {
    Add(kDeleteScheduleRun, r.schedule, r.number);
  }
};

// Reads the tables one after the other, in the transaction that is open on `db`.
class Loader {
 public:
  explicit Loader(PgConnection& db) : db_(db) {}

  absl::StatusOr<StoredState> Load() {
    LL_RETURN_IF_ERROR(
        ForEach("SELECT value FROM meta WHERE key = 'restored'", [&](const PgRows& rows, int i) {
          state_.restored = rows.TimeNs(i, 0);
          return absl::OkStatus();
        }));
    LL_RETURN_IF_ERROR(LoadJobs());
    LL_RETURN_IF_ERROR(LoadTransitions());
    LL_RETURN_IF_ERROR(LoadRegistries());
    LL_RETURN_IF_ERROR(LoadSchedules());
    return std::move(state_);
  }

 private:
  template <typename F>
  absl::Status ForEach(const char* sql, F row) {
    LL_ASSIGN_OR_RETURN(const PgRows rows, db_.Query(sql, PgParams(), kLoadPatience));
    for (int i = 0; i < rows.size(); ++i) LL_RETURN_IF_ERROR(row(rows, i));
    return absl::OkStatus();
  }

  absl::Status LoadJobs() {
    LL_RETURN_IF_ERROR(ForEach(
        "SELECT j.body, j.result, s.job_id, s.spec, s.resolved_spec, s.forecast FROM jobs j LEFT "
        "JOIN submissions s USING (job_id)",
        [&](const PgRows& rows, int i) -> absl::Status {
          LL_ASSIGN_OR_RETURN(Job job, DecodeJob(rows.Bytes(i, 0)));
          if (rows.Bytes(i, 2).empty()) return absl::DataLossError("a job has no submission");
          job.result = rows.Bytes(i, 1);
          job.payload = std::make_shared<JobPayload>(
              JobPayload{rows.Bytes(i, 3), rows.Bytes(i, 4), rows.Bytes(i, 5)});
          state_.jobs.push_back(std::move(job));
          return absl::OkStatus();
        }));
    return absl::OkStatus();
  }

  absl::Status LoadTransitions() {
    std::map<std::string, Job*> by_id;
    for (Job& job : state_.jobs) by_id[job.id.value()] = &job;
    return ForEach(
        "SELECT job_id, number, time_ns, state, epoch, reason FROM transitions ORDER BY job_id, "
        "number",
        [&](const PgRows& rows, int i) {
          auto job = by_id.find(rows.Bytes(i, 0));
          if (job == by_id.end()) return absl::DataLossError("a transition has no job");
          if (rows.Int(i, 1) >= job->second->transitions - static_cast<int64_t>(kMaxHistory)) {
            job->second->history.push_back({rows.TimeNs(i, 2),
                                            static_cast<JobState>(rows.Int(i, 3)), rows.Bytes(i, 5),
                                            rows.Int(i, 4)});
          }
          return absl::OkStatus();
        });
  }

  absl::Status LoadRegistries() {
    LL_RETURN_IF_ERROR(
        ForEach("SELECT user_name, request_id, body_sha256, job_id, time_ns FROM requests",
                [&](const PgRows& rows, int i) {
                  state_.requests.push_back({rows.Bytes(i, 0), rows.Bytes(i, 1), rows.Bytes(i, 2),
                                             JobId(rows.Bytes(i, 3)), rows.TimeNs(i, 4)});
                  return absl::OkStatus();
                }));
    LL_RETURN_IF_ERROR(
        ForEach("SELECT body FROM workers", [&](const PgRows& rows, int i) -> absl::Status {
          LL_ASSIGN_OR_RETURN(Worker worker, DecodeWorker(rows.Bytes(i, 0)));
          state_.workers.push_back(std::move(worker));
          return absl::OkStatus();
        }));
    LL_RETURN_IF_ERROR(ForEach(
        "SELECT name, path, verified, config_json FROM models", [&](const PgRows& rows, int i) {
          state_.models.push_back(
              {rows.Bytes(i, 0), rows.Bytes(i, 1), rows.Int(i, 2) != 0, rows.Bytes(i, 3)});
          return absl::OkStatus();
        }));
    LL_RETURN_IF_ERROR(
        ForEach("SELECT name, path, is_default FROM data", [&](const PgRows& rows, int i) {
          state_.data.push_back({rows.Bytes(i, 0), rows.Bytes(i, 1), rows.Int(i, 2) != 0});
          return absl::OkStatus();
        }));
    return ForEach("SELECT body FROM queues", [&](const PgRows& rows, int i) -> absl::Status {
      LL_ASSIGN_OR_RETURN(QueueRecord queue, DecodeQueue(rows.Bytes(i, 0)));
      state_.queues.push_back(std::move(queue));
      return absl::OkStatus();
    });
  }

  absl::Status LoadSchedules() {
    LL_RETURN_IF_ERROR(ForEach("SELECT body, spec, resolved_spec, forecast FROM schedules",
                               [&](const PgRows& rows, int i) -> absl::Status {
                                 LL_ASSIGN_OR_RETURN(ScheduleRecord schedule,
                                                     DecodeSchedule(rows.Bytes(i, 0)));
                                 schedule.payload = std::make_shared<JobPayload>(JobPayload{
                                     rows.Bytes(i, 1), rows.Bytes(i, 2), rows.Bytes(i, 3)});
                                 state_.schedules.push_back(std::move(schedule));
                                 return absl::OkStatus();
                               }));
    return ForEach("SELECT schedule, body FROM schedule_runs",
                   [&](const PgRows& rows, int i) -> absl::Status {
                     LL_ASSIGN_OR_RETURN(ScheduleRun run, DecodeScheduleRun(rows.Bytes(i, 1)));
                     state_.schedule_runs.push_back({rows.Bytes(i, 0), std::move(run)});
                     return absl::OkStatus();
                   });
  }

  PgConnection& db_;
  StoredState state_;
};

constexpr char kBeginLoad[] =
    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = '60s'";

absl::StatusOr<StoredState> LoadSnapshot(PgConnection& db, int64_t* term) {
  LL_RETURN_IF_ERROR(db.Execute(kBeginLoad, kPgPatience));
  if (term != nullptr) {
    LL_ASSIGN_OR_RETURN(const PgRows row,
                        db.Query("SELECT term FROM leader", PgParams(), kPgPatience));
    *term = row.Int(0, 0);
  }
  LL_ASSIGN_OR_RETURN(StoredState state, Loader(db).Load());
  LL_RETURN_IF_ERROR(db.Execute("COMMIT", kPgPatience));
  return state;
}

// The database's refusal, as everybody else knows it.
absl::Status OrNotLeader(const absl::Status& status) {
  return absl::IsAborted(status) ? NotLeaderError("") : status;
}

class PostgresStore : public Store {
 public:
  PostgresStore(PostgresOptions options, std::unique_ptr<PgConnection> db)
      : options_(std::move(options)), db_(std::move(db)) {}

  absl::Status Commit(absl::Span<const Record> records) override {
    if (records.empty()) return Check();
    std::vector<PgStatement> statements;
    for (const Record& record : records) std::visit(PgWriter{statements}, record);
    return Write(std::move(statements), kPgPatience);
  }

  absl::Status Replace(absl::Span<const Record> records, absl::Time restored) override {
    std::vector<PgStatement> statements;
    for (int table = 0; table < kTables; ++table) statements.push_back({kClear + table, {}});
    statements.push_back({kSetRestored, PgParams(restored)});
    for (const Record& record : records) std::visit(PgWriter{statements}, record);
    return Write(std::move(statements), kLoadPatience);
  }

  absl::StatusOr<StoredState> LoadAll() override {
    LL_RETURN_IF_ERROR(Check());
    return LoadSnapshot(*db_, nullptr);
  }
  absl::StatusOr<int64_t> RaiseTerm(int64_t above) override {
    LL_RETURN_IF_ERROR(Check());
    const auto raised = db_->Query(
        "UPDATE leader SET term = greatest(term, $2) + 1 WHERE holder = $1 RETURNING term",
        PgParams(options_.holder, above), kPgPatience);
    if (!raised.ok()) return poisoned_ = raised.status();
    if (raised->size() != 1) return poisoned_ = NotLeaderError("");
    return term_ = raised->Int(0, 0);
  }

  absl::Status Check() const override {
    if (!poisoned_.ok() || options_.check == nullptr) return poisoned_;
    return options_.check();
  }

  std::string Description() const override {
    return absl::StrCat("postgresql ", db_->server_version(), " at ", db_->place());
  }

 private:
  absl::Status Write(std::vector<PgStatement> statements, absl::Duration patience) {
    LL_RETURN_IF_ERROR(Check());
    if (term_ == 0) return absl::FailedPreconditionError("the term was not raised");
    // Last, so that nothing holds the leader's row while statements travel.
    statements.push_back({kCheckLeader, PgParams(options_.holder, term_)});
    bool undone = false;
    const absl::Status status = db_->Transaction(statements, patience, &undone);
    if (status.ok() || (undone && absl::IsResourceExhausted(status))) return status;
    poisoned_ = absl::IsResourceExhausted(status)
                    ? absl::UnavailableError(status.message())  // not certain to be undone
                    : OrNotLeader(status);
    return poisoned_;
  }

  const PostgresOptions options_;
  std::unique_ptr<PgConnection> db_;
  int64_t term_ = 0;
  absl::Status poisoned_;
};

class PostgresLease : public LeaseTable {
 public:
  PostgresLease(PostgresOptions options, absl::Duration length)
      : options_(std::move(options)), length_(length) {}

  absl::StatusOr<LeaseAnswer> Ask(const std::string& address) override {
    absl::StatusOr<LeaseAnswer> answer = AskOnce(address);
    if (!answer.ok()) db_.reset();  // its state is not known
    return answer;
  }

  void Release() override {
    if (db_ == nullptr) return;
    const auto done = db_->Query(
        "UPDATE leader SET holder = '', address = '', expires = '-infinity' WHERE holder = $1",
        PgParams(options_.holder), patience());
    if (!done.ok()) db_.reset();
  }

 private:
  // A question that takes longer than the lease is of no use.
  absl::Duration patience() const { return length_ / 2; }

  absl::StatusOr<LeaseAnswer> AskOnce(const std::string& address) {
    if (db_ == nullptr) {
      LL_ASSIGN_OR_RETURN(db_, PgConnection::Open(options_.uri, kLeaseApplication, patience()));
      LL_RETURN_IF_ERROR(PreparePostgres(*db_));
    }
    // First a look: a standby's question locks nothing.
    LL_ASSIGN_OR_RETURN(
        const PgRows seen,
        db_->Query("SELECT (holder = $1 OR expires <= clock_timestamp())::int::int8, address, "
                   "CASE WHEN isfinite(expires) THEN (extract(epoch FROM expires - "
                   "clock_timestamp()) * 1e6)::int8 ELSE 0 END FROM leader",
                   PgParams(options_.holder), patience()));
    if (seen.size() != 1) return absl::InternalError("ll.leader has not one row");
    if (seen.Int(0, 0) != 0) {
      LL_ASSIGN_OR_RETURN(
          const PgRows taken,
          db_->Query("UPDATE leader SET holder = $1, address = $2, expires = clock_timestamp() + "
                     "$3::bigint * interval '1 microsecond' WHERE holder = $1 OR expires <= "
                     "clock_timestamp() RETURNING term",
                     PgParams(options_.holder, address, absl::ToInt64Microseconds(length_)),
                     patience()));
      if (taken.size() == 1) return LeaseAnswer{.mine = true};
    }
    return LeaseAnswer{.address = seen.Bytes(0, 1), .ends_in = absl::Microseconds(seen.Int(0, 2))};
  }

  const PostgresOptions options_;
  const absl::Duration length_;
  std::unique_ptr<PgConnection> db_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> OpenPostgresStore(const PostgresOptions& options) {
  LL_ASSIGN_OR_RETURN(auto db,
                      PgConnection::Open(options.uri, kStoreApplication, kConnectPatience));
  LL_RETURN_IF_ERROR(PreparePostgres(*db));
  // What an earlier opener left under way (a coordinator that was stopped in the middle, a
  // connection that was given up) would hold rows for as long as its server process waits for it.
  LL_RETURN_IF_ERROR(
      db->Query("SELECT count(pg_terminate_backend(a.pid, 1000)) FROM pg_stat_activity a, leader l "
                "WHERE l.holder = $1 AND a.datname = current_database() AND a.usename = "
                "current_user AND a.application_name = $2 AND a.pid <> pg_backend_pid()",
                PgParams(options.holder, kStoreApplication), kPgPatience)
          .status());
  LL_RETURN_IF_ERROR(OrNotLeader(MigratePostgres(*db, PostgresMigrations(), options.holder)));
  LL_RETURN_IF_ERROR(db->Prepare(kWrites, kPgPatience));
  return std::unique_ptr<Store>(std::make_unique<PostgresStore>(options, std::move(db)));
}

std::unique_ptr<LeaseTable> MakePostgresLease(const PostgresOptions& options,
                                              absl::Duration length) {
  return std::make_unique<PostgresLease>(options, length);
}

absl::StatusOr<StoreSnapshot> ReadPostgres(const std::string& uri) {
  LL_ASSIGN_OR_RETURN(auto db, PgConnection::Open(uri, "ll-coordinator backup", absl::Seconds(10)));
  StoreSnapshot out;
  LL_ASSIGN_OR_RETURN(out.state, LoadSnapshot(*db, &out.term));
  return out;
}

}  // namespace ll
