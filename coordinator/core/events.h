// What goes into Scheduler::Step and what comes out. Events carry every identifier and all outside
// facts; effects carry every consequence. The driver must make an effect's records durable before
// it sends or answers anything of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "coordinator/core/access.h"
#include "coordinator/core/records.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/types.h"

namespace ll {

// ---- events: users

struct SubmitEvent {
  JobId job;                // new and random
  std::string request_id;   // empty: not idempotent
  std::string body_sha256;  // of the request, to tell a repeat from a conflict
  std::string user;
  CoreSpec spec;
  std::shared_ptr<const JobPayload> payload;
  Access access;
};
// Several jobs: all are accepted, in one step, or none is.
struct SubmitAllEvent {
  std::string request_id;   // of them all; as SubmitEvent's
  std::string body_sha256;  // of the whole request
  std::string user;
  std::vector<Submission> jobs;  // at least one
  Access access;                 // the jobs are its tenant's
  TenantQuota quota;             // of that tenant
};
// A submit is one of a single job.
inline SubmitAllEvent ToSubmitAll(const SubmitEvent& event) {
  return {event.request_id,
          event.body_sha256,
          event.user,
          {Submission{event.job, event.spec, event.payload}},
          event.access};
}
struct CancelEvent {
  JobId job;
  std::string user;
  std::string reason;  // may be empty
  Access access;
};
struct PauseEvent {
  JobId job;
  std::string user;
  Access access;
};
struct ResumeEvent {
  JobId job;
  std::string user;
  Access access;
};
struct AddModelEvent {
  ModelRecord model;
};
struct AddDataEvent {
  DataRecord data;
};  // is_default takes the mark from the others
struct WorkerDeclaredDeadEvent {
  WorkerId worker;
  std::string user;
};

// Makes a queue or changes its weight and limits. What runs goes on.
struct SetQueueEvent {
  QueueRecord queue;  // `used` is ignored
  std::string user;
};
enum class Cordon {
  kUncordon,  // takes gangs again; a drain ends
  kCordon,    // takes no new gang; what runs there goes on
  kDrain,     // cordon, and whole gangs with a rank there checkpoint, stop and queue up again
};
struct CordonWorkerEvent {
  WorkerId worker;
  Cordon cordon = Cordon::kCordon;
  std::string user;
  std::string reason;  // may be empty
};

// Makes a schedule. One of that name with another body is refused unless `replace`; its runs are
// kept, and what they are compared with begins anew.
struct SetScheduleEvent {
  ScheduleRecord schedule;  // the scheduler's own part is ignored
  bool replace = false;
  Access access;      // what its jobs may name
  TenantQuota quota;  // of the schedule's tenant
};
// Jobs of its runs go on.
struct DeleteScheduleEvent {
  std::string schedule;
  std::string user;
};
struct PauseScheduleEvent {
  std::string schedule;
  bool paused = true;  // false: resume
  std::string user;
};
// A run now, also of a paused schedule.
struct RunScheduleEvent {
  std::string schedule;
  JobId job;               // new and random; of a training in stages the last job's
  std::string request_id;  // the same again: the same job
  std::string user;
  TenantQuota quota;  // of the schedule's tenant
};
// What is known of a run whose job has ended (Scheduler::to_judge). Of one that was judged:
// ignored.
struct JudgeRunEvent {
  std::string schedule;
  int64_t number = 0;
  RunMeasures measures;
};

// ---- events: agents. `session` is the driver's number of the stream, never reused within one
// process; an event of a session that is not the worker's current one is ignored.

struct HeldRank {
  int rank = 0;
  int slot = 0;
  bool exited = false;
  RankExit exit;       // when exited
  std::string result;  // when exited: of the `done` event, rank 0
};
struct HeldGang {
  JobId job;
  int64_t epoch = 0;
  std::vector<HeldRank> ranks;
};
struct AgentHelloEvent {
  uint64_t session = 0;
  WorkerId worker;
  std::string incarnation;
  std::string host;
  std::string fabric_host;
  std::string version;
  std::string http_address;
  std::vector<Slot> slots;
  std::vector<HeldGang> gangs;
  std::string nvlink_domain;  // Worker::nvlink_domain
  std::string rack;
};
struct AgentGoneEvent {
  WorkerId worker;
  uint64_t session = 0;
};  // the stream ended
struct AgentHeardEvent {
  WorkerId worker;
  uint64_t session = 0;
};  // a heartbeat or telemetry

struct StartedFact {};
struct RendezvousFact {
  std::string address;
};
struct TrainingFact {
  int64_t step = 0;
};
struct CheckpointFact {
  int64_t step = 0;
  std::string path;
  std::string manifest_sha256;
};
struct ExitFact {
  RankExit exit;
  std::string result;
};
// The whole of this agent's part of the gang.
struct RefusedFact {
  Failure failure;
  bool leaving = false;  // it shuts down
};
struct ReportEvent {
  WorkerId worker;
  uint64_t session = 0;
  JobId job;
  int64_t epoch = 0;
  int rank = 0;
  int64_t sequence = 0;  // counts 1, 2, … within (job, epoch) at this agent
  std::variant<StartedFact, RendezvousFact, TrainingFact, CheckpointFact, ExitFact, RefusedFact>
      fact;
};

// The store was put back from a backup of that time (for people). Once, before anything else.
struct RestoredEvent {
  std::string backup;
};

// Time passes. Expected about once a second; nothing expires without it.
struct TickEvent {};

using Event = std::variant<SubmitEvent, SubmitAllEvent, CancelEvent, PauseEvent, ResumeEvent,
                           AddModelEvent, AddDataEvent, WorkerDeclaredDeadEvent, SetQueueEvent,
                           CordonWorkerEvent, SetScheduleEvent, DeleteScheduleEvent,
                           PauseScheduleEvent, RunScheduleEvent, JudgeRunEvent, AgentHelloEvent,
                           AgentGoneEvent, AgentHeardEvent, ReportEvent, RestoredEvent, TickEvent>;

// ---- effects: orders to agents (proto/workers.proto says what an agent does with each)

struct Verdict {
  JobId job;
  int64_t epoch = 0;
  bool keep = false;
  int64_t report_sequence = 0;  // highest durable report of this agent
  std::vector<int> ranks;       // of the attempt that are this agent's
};
// The session is accepted; an older session of the same worker is to be ended by the driver.
struct WelcomeOrder {
  std::vector<Verdict> verdicts;
};
struct RejectHelloOrder {
  absl::Status status;
};  // send the status, then end the stream
struct RankPlace {
  int rank = 0;
  int slot = 0;
};
struct StartGangOrder {
  JobId job;
  int64_t epoch = 0;
  std::shared_ptr<const JobPayload> payload;
  int world_size = 0;
  std::vector<RankPlace> ranks;  // this agent's
  std::string nonce;
  std::optional<Checkpoint> resume_from;
  std::optional<Checkpoint> source;  // Job::source_checkpoint
};
struct StopGangOrder {
  JobId job;
  int64_t epoch = 0;
  bool checkpoint = false;  // false: kill
  absl::Duration grace;
  std::string reason;
};
struct RendezvousOrder {
  JobId job;
  int64_t epoch = 0;
  std::string address;
};
struct ReleaseGangOrder {
  JobId job;
  int64_t epoch = 0;
};
struct ReportAckOrder {
  JobId job;
  int64_t epoch = 0;
  int64_t sequence = 0;
};

struct Send {
  WorkerId worker;
  uint64_t session = 0;
  std::variant<WelcomeOrder, RejectHelloOrder, StartGangOrder, StopGangOrder, RendezvousOrder,
               ReleaseGangOrder, ReportAckOrder>
      order;
};

// Answer to a user's event.
struct Reply {
  absl::Status status;      // with the field to blame (base/field_error.h)
  JobId job;                // Submit: the new or the earlier job; SubmitAll: the first
  bool existed = false;     // Submit: the request id was seen before
  std::vector<JobId> jobs;  // SubmitAll: all, in the event's order
};

struct Effects {
  std::vector<Record> records;      // 1. one transaction
  std::vector<Send> sends;          // 2. in this order
  Reply reply;                      // 2. meaningful for users' events
  std::vector<JobId> changed_jobs;  // 3. for watchers; each once
  bool workers_changed = false;
  std::vector<std::string> notes;  // for the log: refusals and surprises
};

}  // namespace ll
