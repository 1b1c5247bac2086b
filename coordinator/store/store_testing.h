// For tests of stores: records to commit, and a way to compare what comes back.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "coordinator/core/records.h"
#include "coordinator/store/codec.h"

namespace ll {

// The records of one submitted job.
inline std::vector<Record> SubmissionRecords(int number, size_t payload_bytes = 100) {
  Job job;
  job.id = JobId(absl::StrCat("job-", number));
  job.sequence = number;
  job.user = "ann";
  job.request_id = absl::StrCat("r", number);
  job.transitions = 1;
  job.result = std::string("\0\xff", 2);
  const auto payload = std::make_shared<JobPayload>(
      JobPayload{std::string(payload_bytes, '\xfe'), std::string("re\0solved", 9), ""});
  return {PutSubmission{job.id, job.sequence, payload},
          PutRequest{{"ann", job.request_id, "hash", job.id, absl::FromUnixSeconds(number)}},
          PutTransition{job.id,
                        job.sequence,
                        0,
                        {absl::FromUnixSeconds(number), JobState::kQueued, "submitted", 0}},
          PutJob{job}};
}

// A change of one of a few things of each kind.
inline std::vector<Record> RandomRecords(Random& random) {
  const int number = 1 + static_cast<int>(random.Below(12));
  const std::string name = absl::StrCat("n", number);
  const auto text = [&random] { return RandomHex(random, 1 + random.Below(8)); };
  switch (random.Below(10)) {
    case 0:
    case 1:
    case 2: {
      std::vector<Record> records = SubmissionRecords(number, random.Below(200));
      Job& job = std::get<PutJob>(records.back()).job;
      job.reason = text();
      job.state = static_cast<JobState>(1 + random.Below(4));
      job.epoch = static_cast<int64_t>(random.Below(9));
      return records;
    }
    case 3:
      return {DeleteJob{JobId(absl::StrCat("job-", number)), number}};
    case 4:
      return {DeleteRequest{"ann", absl::StrCat("r", number), absl::FromUnixSeconds(number)}};
    case 5: {
      Worker worker;
      worker.name = WorkerId(name);
      worker.host = text();
      if (random.Below(3) == 0) return {DeleteWorker{worker.name}};
      return {PutWorker{worker}};
    }
    case 6:
      return {PutModel{{name, text(), random.Below(2) == 0, text()}},
              PutData{{name, text(), random.Below(2) == 0}}};
    case 7: {
      QueueRecord queue;
      queue.name = name;
      queue.weight = 1 + static_cast<double>(random.Below(5));
      return {PutQueue{queue}};
    }
    case 8: {
      ScheduleRecord schedule;
      schedule.name = name;
      schedule.user = text();
      schedule.payload = std::make_shared<JobPayload>(JobPayload{text(), text(), text()});
      ScheduleRun run;
      run.number = static_cast<int64_t>(random.Below(4));
      return {PutSchedule{schedule}, PutScheduleRun{name, run}};
    }
    default:
      if (random.Below(2) == 0) return {DeleteSchedule{name}};
      return {DeleteScheduleRun{name, static_cast<int64_t>(random.Below(4))}};
  }
}

// Everything, one line each, in one order.
inline std::vector<std::string> Lines(const StoredState& state) {
  std::vector<std::string> out;
  const auto payload = [](const JobPayload& p) {
    return absl::StrCat(p.spec, "|", p.resolved_spec, "|", p.forecast);
  };
  for (const Job& job : state.jobs) {
    out.push_back(absl::StrCat("job ", EncodeJob(job), payload(*job.payload), job.result));
    for (const Transition& t : job.history) {
      out.push_back(absl::StrCat("transition ", job.id.value(), absl::ToUnixNanos(t.time),
                                 static_cast<int>(t.state), t.reason, t.epoch));
    }
  }
  for (const RequestRecord& r : state.requests) {
    out.push_back(absl::StrCat("request ", r.user, r.request_id, r.body_sha256, r.job.value(),
                               absl::ToUnixNanos(r.time)));
  }
  for (const Worker& worker : state.workers) out.push_back("worker " + EncodeWorker(worker));
  for (const ModelRecord& m : state.models)
    out.push_back(absl::StrCat("model ", m.name, m.path, m.verified, m.config_json));
  for (const DataRecord& d : state.data)
    out.push_back(absl::StrCat("data ", d.name, d.path, d.is_default));
  for (const QueueRecord& queue : state.queues) out.push_back("queue " + EncodeQueue(queue));
  for (const ScheduleRecord& s : state.schedules)
    out.push_back(absl::StrCat("schedule ", EncodeSchedule(s), payload(*s.payload)));
  for (const auto& [name, run] : state.schedule_runs)
    out.push_back(absl::StrCat("run ", name, EncodeScheduleRun(run)));
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace ll
