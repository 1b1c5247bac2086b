// What must be durable: the scheduler emits records, the store writes them, Recover reads them
// back. Each record replaces or deletes one row, so applying a record twice changes nothing.
//
// Beside a job's id stands its sequence number, by which a store may keep the job's rows: what is
// written together then lies together, and not where a random id puts it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "coordinator/core/schedule.h"
#include "coordinator/core/types.h"

namespace ll {

// The constant part of a job, written once at submission.
struct PutSubmission {
  JobId job;
  int64_t sequence;
  std::shared_ptr<const JobPayload> payload;
};
// Everything persisted of a job except its payload and its history.
struct PutJob {
  Job job;
};
struct PutTransition {  // takes the place of the job's one kMaxHistory before it
  JobId job;
  int64_t sequence;
  int64_t index = 0;  // counts the job's transitions from 0
  Transition transition;
};
struct DeleteJob {  // with its submission and transitions
  JobId job;
  int64_t sequence;
};
struct PutRequest {
  RequestRecord request;
};
struct DeleteRequest {
  std::string user;
  std::string request_id;
  absl::Time time;  // RequestRecord::time
};
struct PutWorker {
  Worker worker;
};
struct DeleteWorker {
  WorkerId worker;
};
struct PutModel {
  ModelRecord model;
};
struct PutData {
  DataRecord data;
};
struct PutQueue {
  QueueRecord queue;
};
struct PutSchedule {
  ScheduleRecord schedule;
};
struct DeleteSchedule {  // with its runs
  std::string schedule;
};
struct PutScheduleRun {
  std::string schedule;
  ScheduleRun run;
};
struct DeleteScheduleRun {
  std::string schedule;
  int64_t number = 0;
};

using Record = std::variant<PutSubmission, PutJob, PutTransition, DeleteJob, PutRequest,
                            DeleteRequest, PutWorker, DeleteWorker, PutModel, PutData, PutQueue,
                            PutSchedule, DeleteSchedule, PutScheduleRun, DeleteScheduleRun>;

// Everything the store holds.
struct StoredState {
  std::vector<Job> jobs;  // with payload and history, any order
  std::vector<RequestRecord> requests;
  std::vector<Worker> workers;
  std::vector<ModelRecord> models;
  std::vector<DataRecord> data;
  std::vector<QueueRecord> queues;
  std::vector<ScheduleRecord> schedules;
  std::vector<std::pair<std::string, ScheduleRun>> schedule_runs;  // by schedule, any order
  // When it was put back from a backup; InfinitePast: never. Agents may have obeyed terms and
  // attempts that it does not know.
  absl::Time restored = absl::InfinitePast();
};

}  // namespace ll
