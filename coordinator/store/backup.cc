#include "coordinator/store/backup.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/store/codec.h"
#include "coordinator/store/mem_store.h"

namespace ll {
namespace {

using Json = nlohmann::json;
constexpr char kFormat[] = "ll-backup";
constexpr int kVersion = 1;
constexpr size_t kMaxLineBytes = 64 << 20;

std::string B(absl::string_view bytes) { return absl::Base64Escape(bytes); }

Json Document(const std::string& encoded) { return Json::parse(encoded); }

void AddPayload(const JobPayload& payload, Json& line) {
  line["spec"] = B(payload.spec);
  line["resolved_spec"] = B(payload.resolved_spec);
  line["forecast"] = B(payload.forecast);
}

Json JobLine(const Job& job) {
  Json line = {{"job", Document(EncodeJob(job))}, {"result", B(job.result)}};
  AddPayload(*job.payload, line);
  Json history = Json::array();
  for (const Transition& t : job.history)
    history.push_back({absl::ToUnixNanos(t.time), static_cast<int>(t.state), t.epoch, B(t.reason)});
  line["history"] = std::move(history);
  return line;
}

// Reads one line; what is missing or of another kind throws, which ends in DecodeBackup.
class LineReader {
 public:
  explicit LineReader(StoredState& state) : state_(state) {}

  absl::Status Read(const Json& line) {
    if (line.contains("job")) return ReadJob(line);
    if (line.contains("request")) {
      const Json& r = line["request"];
      state_.requests.push_back({Bytes(r.at("user")), Bytes(r.at("id")), Bytes(r.at("body_sha256")),
                                 JobId(Bytes(r.at("job"))), Time(r.at("time_ns"))});
    } else if (line.contains("worker")) {
      LL_ASSIGN_OR_RETURN(Worker worker, DecodeWorker(line["worker"].dump()));
      state_.workers.push_back(std::move(worker));
    } else if (line.contains("model")) {
      const Json& m = line["model"];
      state_.models.push_back({Bytes(m.at("name")), Bytes(m.at("path")),
                               m.at("verified").get<bool>(), Bytes(m.at("config_json"))});
    } else if (line.contains("data")) {
      const Json& d = line["data"];
      state_.data.push_back(
          {Bytes(d.at("name")), Bytes(d.at("path")), d.at("is_default").get<bool>()});
    } else if (line.contains("queue")) {
      LL_ASSIGN_OR_RETURN(QueueRecord queue, DecodeQueue(line["queue"].dump()));
      state_.queues.push_back(std::move(queue));
    } else if (line.contains("schedule")) {
      LL_ASSIGN_OR_RETURN(ScheduleRecord schedule, DecodeSchedule(line["schedule"].dump()));
      schedule.payload = Payload(line);
      state_.schedules.push_back(std::move(schedule));
    } else if (line.contains("run")) {
      LL_ASSIGN_OR_RETURN(ScheduleRun run, DecodeScheduleRun(line["run"].dump()));
      state_.schedule_runs.push_back({Bytes(line.at("of")), std::move(run)});
    } else {
      return absl::FailedPreconditionError("a record of a kind that this program does not know");
    }
    return absl::OkStatus();
  }

 private:
  static std::string Bytes(const Json& value) {
    std::string out;
    if (!absl::Base64Unescape(value.get<std::string>(), &out)) throw std::runtime_error("base64");
    return out;
  }
  static absl::Time Time(const Json& value) { return absl::FromUnixNanos(value.get<int64_t>()); }
  static std::shared_ptr<const JobPayload> Payload(const Json& line) {
    return std::make_shared<JobPayload>(JobPayload{
        Bytes(line.at("spec")), Bytes(line.at("resolved_spec")), Bytes(line.at("forecast"))});
  }

  absl::Status ReadJob(const Json& line) {
    LL_ASSIGN_OR_RETURN(Job job, DecodeJob(line["job"].dump()));
    job.result = Bytes(line.at("result"));
    job.payload = Payload(line);
    for (const Json& t : line.at("history")) {
      job.history.push_back({Time(t.at(0)), static_cast<JobState>(t.at(1).get<int>()),
                             Bytes(t.at(3)), t.at(2).get<int64_t>()});
    }
    state_.jobs.push_back(std::move(job));
    return absl::OkStatus();
  }

  StoredState& state_;
};

absl::Status Damaged(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("not a whole backup: ", std::string(what)));
}

absl::StatusOr<Backup> DecodeLines(const std::vector<absl::string_view>& lines) {
  Backup out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].size() > kMaxLineBytes) return Damaged("a line is too long");
    auto line = ParseJsonObject(lines[i]);
    if (!line.ok()) return Damaged(absl::StrCat("line ", i + 1, ": ", line.status().message()));
    if (i == 0) {
      if (line->value("format", "") != kFormat) return Damaged("it does not begin like one");
      if (line->value("version", 0) > kVersion) {
        return absl::FailedPreconditionError(
            absl::StrCat("the backup has version ", line->value("version", 0),
                         ", this program reads up to ", kVersion, ": use the newer program"));
      }
      out.snapshot.term = line->at("term").get<int64_t>();
      out.store = line->value("store", "");
      std::string error;
      if (!absl::ParseTime(absl::RFC3339_full, line->value("created", ""), &out.created, &error))
        return Damaged("no date");
      continue;
    }
    const absl::Status read = LineReader(out.snapshot.state).Read(*line);
    if (!read.ok())
      return absl::Status(read.code(), absl::StrCat("line ", i + 1, ": ", read.message()));
  }
  if (lines.empty()) return Damaged("it is empty");
  return out;
}

}  // namespace

std::string EncodeBackup(const Backup& backup) {
  std::string out;
  int64_t lines = 0;
  const auto add = [&](const Json& line) {
    absl::StrAppend(&out, line.dump(-1, ' ', false, Json::error_handler_t::replace), "\n");
    ++lines;
  };
  add({{"format", kFormat},
       {"version", kVersion},
       {"created", absl::FormatTime(absl::RFC3339_full, backup.created, absl::UTCTimeZone())},
       {"store", backup.store},
       {"term", backup.snapshot.term}});
  const StoredState& s = backup.snapshot.state;
  for (const Job& job : s.jobs) add(JobLine(job));
  for (const RequestRecord& r : s.requests) {
    add({{"request",
          {{"user", B(r.user)},
           {"id", B(r.request_id)},
           {"body_sha256", B(r.body_sha256)},
           {"job", B(r.job.value())},
           {"time_ns", absl::ToUnixNanos(r.time)}}}});
  }
  for (const Worker& worker : s.workers) add({{"worker", Document(EncodeWorker(worker))}});
  for (const ModelRecord& m : s.models) {
    add({{"model",
          {{"name", B(m.name)},
           {"path", B(m.path)},
           {"verified", m.verified},
           {"config_json", B(m.config_json)}}}});
  }
  for (const DataRecord& d : s.data)
    add({{"data", {{"name", B(d.name)}, {"path", B(d.path)}, {"is_default", d.is_default}}}});
  for (const QueueRecord& queue : s.queues) add({{"queue", Document(EncodeQueue(queue))}});
  for (const ScheduleRecord& schedule : s.schedules) {
    Json line = {{"schedule", Document(EncodeSchedule(schedule))}};
    AddPayload(*schedule.payload, line);
    add(line);
  }
  for (const auto& [name, run] : s.schedule_runs)
    add({{"run", Document(EncodeScheduleRun(run))}, {"of", B(name)}});
  const std::string hash = Sha256Hex(out);
  absl::StrAppend(&out, Json{{"sha256", hash}, {"lines", lines}}.dump(), "\n");
  return out;
}

absl::StatusOr<Backup> DecodeBackup(absl::string_view text) {
  if (text.empty() || text.back() != '\n') return Damaged("its end is missing");
  const size_t last = text.rfind('\n', text.size() - 2);
  if (last == absl::string_view::npos) return Damaged("its end is missing");
  const absl::string_view body = text.substr(0, last + 1);
  const auto end = ParseJsonObject(text.substr(last + 1));
  if (!end.ok() || !end->contains("sha256") || !(*end)["sha256"].is_string())
    return Damaged("its end is missing");
  if ((*end)["sha256"].get<std::string>() != Sha256Hex(body))
    return Damaged("its bytes are not those that were written");
  std::vector<absl::string_view> lines;
  for (size_t from = 0; from < body.size();) {
    const size_t to = body.find('\n', from);
    lines.push_back(body.substr(from, to - from));
    from = to + 1;
  }
  // nlohmann tells missing keys and other types by exceptions; they end here.
  try {
    return DecodeLines(lines);
  } catch (const std::exception& error) {
    return Damaged(error.what());
  }
}

std::vector<Record> RecordsOf(const StoredState& state) {
  std::vector<Record> out;
  for (const Job& job : state.jobs) {
    out.push_back(PutSubmission{job.id, job.sequence, job.payload});
    const int64_t first = job.transitions - static_cast<int64_t>(job.history.size());
    for (size_t i = 0; i < job.history.size(); ++i)
      out.push_back(
          PutTransition{job.id, job.sequence, first + static_cast<int64_t>(i), job.history[i]});
    out.push_back(PutJob{job});
  }
  for (const RequestRecord& r : state.requests) out.push_back(PutRequest{r});
  for (const Worker& w : state.workers) out.push_back(PutWorker{w});
  for (const ModelRecord& m : state.models) out.push_back(PutModel{m});
  for (const DataRecord& d : state.data) out.push_back(PutData{d});
  for (const QueueRecord& q : state.queues) out.push_back(PutQueue{q});
  for (const ScheduleRecord& s : state.schedules) out.push_back(PutSchedule{s});
  for (const auto& [name, run] : state.schedule_runs) out.push_back(PutScheduleRun{name, run});
  return out;
}

bool IsEmpty(const StoredState& state) { return RecordsOf(state).empty(); }

absl::StatusOr<StoredState> Restored(const Backup& backup, absl::Time now) {
  MemStore memory;
  LL_RETURN_IF_ERROR(memory.Commit(RecordsOf(backup.snapshot.state)));
  LL_ASSIGN_OR_RETURN(StoredState state, memory.LoadAll());
  const StepTime time{absl::ZeroDuration(), now};
  LL_ASSIGN_OR_RETURN(Scheduler scheduler,
                      Scheduler::Recover(std::move(state), SchedulerOptions(), time));
  const RestoredEvent event{
      absl::FormatTime(absl::RFC3339_sec, backup.created, absl::UTCTimeZone())};
  LL_RETURN_IF_ERROR(memory.Commit(scheduler.Step(event, time).records));
  return memory.LoadAll();
}

}  // namespace ll
