// The coordinator's decisions: events in, effects out. Deterministic: no I/O, no clock, no
// randomness, no threads; the same events give the same effects. The same class runs in the
// coordinator, in the scenarios and in the simulator.
//
// Contract with the driver: give one event at a time to Step; make the records of its effects
// durable (several steps may share a transaction, in order); only then send the orders and give the
// reply. If the records cannot be made durable, throw this object away, end all agent sessions and
// Recover from the store.
//
// Invariants (CheckInvariants):
//  1. A slot is held by at most one rank; a rank that has not exited holds its slot on a worker.
//  2. A gang is whole: an attempt has spec.gpus ranks, an elastic one up to spec.max_gpus, on
//  distinct slots of one kind.
//  3. Jobs in a state that holds slots, and no others, have an attempt that is not over.
//  4. Job ids, sequences and (user, request id) are unique; epochs only rise.
//  5. BLOCKED: something is waited for; QUEUED: nothing is; ended jobs have a finish time and wait
//  for nothing.
//  6. The queues hold exactly the QUEUED jobs, in order, and count exactly the gangs that hold
//  slots.
//  7. The pool of slots says of each slot what the workers say (but when workers joined by the
//  hundred: then from the next tick on). A gang of which a rank is out of contact is headless.
//  8. A job that starts from another's checkpoint has it before it is QUEUED.
//  9. A schedule that is not paused has its next fire time among those to come; a run with a job
//  that was not judged is known by that job.
// 10. Only an elastic job changes its size, and until it starts again nothing else becomes of it.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/core/backfill.h"
#include "coordinator/core/elastic.h"
#include "coordinator/core/events.h"
#include "coordinator/core/fair_share.h"
#include "coordinator/core/lease.h"
#include "coordinator/core/placement.h"
#include "coordinator/core/preemption.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/schedule.h"

namespace ll {

struct SchedulerOptions {
  // Random bits of this process; nonces of gangs are derived from it.
  std::string nonce_seed;
  // All agents write into one job store, so that any host can resume any checkpoint. Without it a
  // gang never spans hosts and a job that has a checkpoint runs on the host that holds it.
  bool shared_job_store = false;
  // Longer: a dead host is noticed later. Shorter: a slow network makes gangs headless.
  absl::Duration lease = absl::Seconds(30);
  absl::Duration heartbeat = absl::Seconds(5);
  // From the start order until every rank trains (loading a model counts).
  absl::Duration start_deadline = absl::Seconds(300);
  // From the first rank's good end until the last one's.
  absl::Duration finish_deadline = absl::Minutes(10);
  // What a rank gets to reach a step boundary and write a checkpoint before it is killed.
  absl::Duration stop_grace = absl::Minutes(5);
  // A kill that was not confirmed is ordered again after this long, and so on.
  absl::Duration kill_repeat = absl::Seconds(30);
  // A silent worker that holds nothing is forgotten after this long.
  absl::Duration forget_worker_after = absl::Hours(24 * 7);
  // How long the request id of a deleted job is remembered.
  absl::Duration request_memory = absl::Hours(24 * 7);
  size_t max_unfinished_jobs = 100'000;
  // What a queue used this long ago counts half against it; 0: only what it holds counts.
  absl::Duration half_life = absl::Hours(24 * 7);
  // An attempt that trains is preempted no sooner, unless its spec says otherwise.
  absl::Duration min_runtime = absl::Minutes(10);
  // How many jobs behind the reservation a pass considers for a hole.
  int backfill_depth = 200;
  // A worker on which gangs of this many different jobs failed by infrastructure within the window
  // is cordoned. 0: never.
  int lemon_jobs = 3;
  absl::Duration lemon_window = absl::Hours(1);
  RetryOptions retry;
  ElasticOptions elastic;
};

// Moments of one step. Wall time is only written down and compared with deadlines and the fire
// times of schedules, at the start also with the ends of jobs; everything else uses steady time.
struct StepTime {
  absl::Duration steady;
  absl::Time wall;
};

struct ListQuery {
  size_t limit = 100;
  int64_t before_sequence = INT64_MAX;        // exclusive; the last page's smallest
  std::vector<JobState> states;               // empty: all
  std::map<std::string, std::string> labels;  // all of them; an empty value: any
  Access access;
};

// Not thread-safe: Step and the views belong to one thread.
class Scheduler {
 public:
  // Continues from what the store holds (nothing: an empty cluster). Every worker starts out of
  // contact with a full lease. FailedPrecondition when the records contradict each other.
  static absl::StatusOr<Scheduler> Recover(StoredState stored, SchedulerOptions options,
                                           StepTime now);

  Effects Step(const Event& event, StepTime now);
  // As above with the times apart.
  Effects Step(const Event& event, absl::Duration steady_now, absl::Time wall_now) {
    return Step(event, StepTime{steady_now, wall_now});
  }
  // The same without a pass over the queues: the next Step makes it. For all but the last of
  // several submissions that are decided together, so that the queues are gone through once for all
  // of them.
  Effects StepWithoutPass(const Event& event, StepTime now);

  // Aborts when an invariant does not hold. For tests: walks over everything.
  void CheckInvariants() const;

  // ---- views; pointers are good until the next Step
  const Job* Find(const JobId& id) const;
  // Null also where `access` does not see it.
  const Job* Find(const JobId& id, const Access& access) const;
  // What is remembered of the submit with that request id of a user (RequestOwner); null where
  // nothing is.
  const RequestRecord* FindRequest(const std::string& user, const std::string& request_id) const {
    auto it = requests_.find({user, request_id});
    return it == requests_.end() ? nullptr : &it->second;
  }
  // The `count` jobs that the request made, in its order; fewer where records have been deleted.
  std::vector<const Job*> JobsOf(const RequestRecord& request, size_t count) const;
  // Newest first.
  std::vector<const Job*> List(const ListQuery& query) const;
  std::vector<std::pair<JobState, int>> CountByState() const;  // states with at least one job
  const std::map<WorkerId, Worker>& workers() const { return workers_; }
  const std::map<std::string, ModelRecord>& models() const { return models_; }
  const std::map<std::string, DataRecord>& data() const { return data_; }
  const FairShare& fair_share() const { return fair_; }
  const std::map<std::string, Schedule>& schedules() const { return schedules_.by_name; }
  // Runs whose jobs have ended and that wait for a JudgeRunEvent.
  const std::set<RunKey>& to_judge() const { return schedules_.to_judge; }
  // Why the job is where it is, in one sentence. NotFound.
  absl::StatusOr<std::string> Why(const JobId& id) const;
  // Between which waits from now on a queued job is expected to start, by the forecasts of those
  // before it; nullopt where that cannot be told (it waits for workers or a limit, not for an end).
  std::optional<std::pair<absl::Duration, absl::Duration>> PredictedWait(const Job& job) const;
  const SchedulerOptions& options() const { return options_; }

 private:
  explicit Scheduler(SchedulerOptions options)
      : options_(std::move(options)), time_(options_.lease), fair_(options_.half_life) {}

  Effects Decide(const Event& event, StepTime now, bool pass);

  // scheduler_submit.cc: new jobs
  void On(const SubmitEvent& event);
  void On(const SubmitAllEvent& event);
  bool AnswerRepeat(const SubmitAllEvent& event);
  absl::Status CheckSubmit(const SubmitAllEvent& event) const;
  absl::Status CheckDependencies(const CoreSpec& spec, const std::set<JobId>& earlier,
                                 const Access& access) const;
  void Accept(const Submission& submission, const SubmitAllEvent& event);

  // The other job as the owner of `reader` may hear of it.
  static std::string NameFor(const Job& reader, const Job& other);

  // scheduler.cc: users
  void On(const CancelEvent& event);
  void On(const PauseEvent& event);
  void On(const ResumeEvent& event);
  void On(const AddModelEvent& event);
  void On(const AddDataEvent& event);
  void On(const SetQueueEvent& event);
  Job* FindOrReply(const JobId& id, const Access& access);

  // scheduler_agents.cc: agents
  void On(const WorkerDeclaredDeadEvent& event);
  void On(const AgentHelloEvent& event);
  void On(const AgentGoneEvent& event);
  void On(const AgentHeardEvent& event);
  void On(const ReportEvent& event);
  absl::Status CheckHello(const AgentHelloEvent& event) const;
  Worker& RegisterWorker(const AgentHelloEvent& event);
  void Reconcile(Job& job, const AgentHelloEvent& event);
  WelcomeOrder WelcomeFor(const AgentHelloEvent& event) const;
  void SendAfterWelcome(const Worker& worker, const AgentHelloEvent& event);
  void ApplyReport(Job& job, const ReportEvent& event);
  void OnStaleReport(Worker& worker, const ReportEvent& event);
  void ApplyExit(Job& job, int rank, const RankExit& exit, const std::string& result);
  void OnRanksReported(Job& job, const WorkerId& worker);
  void ReleaseIfReported(const Job& job, const Worker& worker);
  void Heard(Worker& worker);
  void ScheduleForWorker();

  // scheduler_restore.cc: a store that was put back
  void On(const RestoredEvent& event);
  void LearnEpochs(const AgentHelloEvent& event);

  // scheduler_health.cc: workers out of service
  void On(const CordonWorkerEvent& event);
  void DrainGangs(const Worker& worker);
  void NoteFault(const Job& job);
  bool MayCordon(const Worker& worker) const;

  // scheduler_schedules.cc: jobs by the clock
  void On(const SetScheduleEvent& event);
  void On(const DeleteScheduleEvent& event);
  void On(const PauseScheduleEvent& event);
  void On(const RunScheduleEvent& event);
  void On(const JudgeRunEvent& event);
  Schedule* FindScheduleOrReply(const std::string& name);
  void SaveSchedule(Schedule& schedule, absl::Time next_fire);
  void FireSchedules();
  void Fire(Schedule& schedule, absl::Time time);
  SubmitAllEvent SubmitOf(const ScheduleRecord& record, std::string request_id,
                          const JobId& id) const;
  std::string ResolveOverlap(const Schedule& schedule, SubmitAllEvent& submit);
  void AddRun(Schedule& schedule, ScheduleRun run);
  void TrimRuns(Schedule& schedule);
  void NoteRunEnded(const JobId& id);
  void DropReference(Schedule& schedule);
  void BecomeReference(Schedule& schedule, const ScheduleRun& run);
  void LoadSchedules(StoredState& stored);
  void CheckScheduleInvariants() const;

  // scheduler_time.cc: what time brings, and recovery
  void On(const TickEvent& event);
  std::map<int64_t, Job*> JobsOn(const Worker& worker) const;
  void UpdateHeadless(Job& job);
  void GiveUpSilentRanks();
  void OnDeadline(Job& job);
  void CountRunTime(absl::Duration elapsed);
  void SaveQueues();
  void EndOverdue();
  void DeleteExpired();
  void ForgetWorkers();
  absl::Status Load(StoredState stored);
  absl::Status LoadJob(Job stored);
  absl::Duration FreshDeadline(const Job& job) const;

  // scheduler_attempt.cc: the life of an attempt
  void StartAttempt(Job& job, const std::vector<SlotId>& slots, const std::string& note);
  void SendStart(const Job& job, const Worker& worker);
  void BeginStop(Job& job, StopKind kind, const std::string& reason);
  void SendStop(const Job& job, const Worker& worker);
  void SendStops(const Job& job);
  void ForceEnd(Job& job, Failure failure, StopKind kind);
  void AfterRankChange(Job& job);
  void OnFirstEnd(Job& job, int rank);
  void EndAttempt(Job& job);
  void EndFinishing(Job& job, const AttemptOutcome& outcome);
  void LoseRank(Job& job, int rank, std::string why, bool stray);
  void FreeSlot(const Job& job, int rank);
  // The workers that have a rank of the attempt for which `which` holds, each once, by name.
  std::vector<const Worker*> WorkersOf(const Attempt& attempt, bool (*which)(const Rank&)) const;

  // scheduler_pass.cc: who starts now
  struct Pass;
  void SchedulePass();
  void FindStrays(Pass& pass);
  void ServeClaims(Pass& pass);
  bool ServeClaim(Job& job, Pass& pass);
  void DropClaim(Job& job);
  void Consider(Job& job, Pass& pass);
  bool TryStart(Job& job, const PlacementRequest& request, KindSet kinds, Pass& pass);
  void Start(Job& job, std::vector<SlotId> slots, const std::string& note, bool may_take_more,
             Pass& pass);
  bool TryPreempt(Job& job, const PlacementRequest& request, Pass& pass);
  std::vector<VictimCandidate> VictimsFor(const Job& job, bool reclaim) const;
  std::vector<VictimCandidate> ShrinkFirst(const std::vector<VictimCandidate>& candidates) const;
  void Preempt(Job& victim, const JobId& by, const std::string& reason);
  void BecomeHead(Job& job, const PlacementRequest& request, KindSet kinds, Pass& pass);
  // For the heads that wait for any of these kinds, where that has not been done.
  void MakeReservations(KindSet kinds, Pass& pass);
  int64_t StartedInOrder(KindSet kinds) const;
  bool EndsBefore(const Job& job, const Reservation& reservation) const;
  bool MayFillHole(const Job& job, KindSet kinds, const Pass& pass) const;
  Reservation ReservationOf(const PlacementRequest& request, const SlotPool& pool) const;
  // `needs_workers`: only the return of workers helps.
  void SetWaitReason(Job& job, std::string reason, bool needs_workers = false);
  HostView ViewOf(const Worker& worker) const;
  PlacementRequest RequestOf(const Job& job) const;
  // Whether a worker on `host` is in contact, or was just now, and not cordoned.
  bool TakesGangs(const std::string& host) const;

  // scheduler_elastic.cc: gangs that change their size
  bool ServeResized(Job& job, Pass& pass);
  void StartPlanned(Pass& pass);
  void GrowGangs(Pass& pass);
  int GrowthOf(const Job& job, SlotPool& pool, int more_gpus) const;
  const std::string& KindOf(const std::vector<SlotId>& slots) const;
  void Resize(Job& job, int to, const std::string& reason);

  // scheduler_views.cc: parts of CheckInvariants
  void CheckJob(const Job& job) const;
  size_t CheckGang(const Job& job) const;
  void CheckWorkers(size_t running_ranks) const;

  // scheduler_why.cc: predictions, for people
  std::string WhyQueued(const Job& job) const;
  std::string OtherTypes(const Job& job, PlacementRequest request, const Queue& queue) const;
  // The waiting jobs that the next pass considers before another one, and can start.
  struct Ahead {
    std::vector<const Job*> jobs;
    bool all = true;  // false: there are more, or it would take long to say
  };
  Ahead AheadOf(const Job& job) const;
  absl::Duration PredictStart(const Job& job, const std::vector<const Job*>& ahead, double factor,
                              const Job** last) const;
  std::pair<absl::Duration, absl::Duration> StartsIn(const Job& job,
                                                     const std::vector<const Job*>& ahead,
                                                     const Job** last) const;
  std::string Sooner(const Job& job, const PlacementRequest& request, const Queue& queue,
                     const Job* last) const;
  // How long it will train from now on, as far as known; infinite: not known.
  absl::Duration Remaining(const Job& job) const;
  void UpdateExpectedEnd(Job& job);
  void RefreshPool();
  void RefreshSlots(const Worker& worker);

  // job changes: all go through these (scheduler.cc)
  void SetState(Job& job, JobState state, std::string reason);
  void EnterState(Job& job, JobState state, std::string reason);
  void Finish(Job& job, JobState end, std::string reason,
              FailureClass failure_class = FailureClass::kNone);
  void ResolveDependents(const Job& ended);
  std::string CauseOf(const Job& ended);
  void Touch(Job& job) {
    touched_[job.sequence] = &job;
  }                               // persist at the end of the step, tell watchers
  void Changed(const JobId& id);  // tell watchers
  void Flush();

  // Null unless the session is the worker's current one.
  Worker* CurrentWorker(const WorkerId& name, uint64_t session);
  Worker& WorkerOf(const Rank& rank);
  void SaveWorker(const Worker& worker);
  void Note(std::string text) { effects_.notes.push_back(std::move(text)); }
  template <typename Order>
  void SendTo(const Worker& worker, Order order) {
    if (worker.connected) effects_.sends.push_back({worker.name, worker.session, std::move(order)});
  }

  SchedulerOptions options_;
  SchedulerTime time_;

  absl::flat_hash_map<JobId, std::unique_ptr<Job>> jobs_;  // never iterated: no fixed order
  std::map<int64_t, Job*> by_sequence_;
  std::map<WorkerId, Worker> workers_;
  std::map<std::pair<std::string, std::string>, RequestRecord> requests_;  // by (user, request id)
  std::map<std::string, ModelRecord> models_;
  std::map<std::string, DataRecord> data_;
  ScheduleTable schedules_;
  int64_t next_sequence_ = 1;

  // Indexes over jobs.
  FairShare fair_;                                  // the queues with the QUEUED jobs
  std::set<JobId> claimants_;                       // QUEUED, with Job::claims
  using JobIndex = absl::btree_map<int64_t, Job*>;  // by sequence
  JobIndex active_;                                 // holds slots or is RETRYING
  JobIndex elastic_;     // holds slots and may have another number of them
  JobIndex preempting_;  // PREEMPTING
  JobIndex headless_;    // Job::headless
  absl::flat_hash_map<JobId, std::set<JobId>> dependents_;  // who waits; never iterated
  std::set<std::pair<absl::Duration, int64_t>> expiry_;  // ended jobs with a ttl: (when, sequence)
  // Expected, of active_: by own time and sequence.
  absl::btree_map<std::pair<absl::Duration, int64_t>, Job*> ends_;
  std::set<std::pair<absl::Time, int64_t>> deadlines_;  // of unfinished jobs: (when, sequence)
  SlotPool pool_;                                       // what is free
  std::set<WorkerId> maybe_strays_;  // workers that may have slots held by ranks that were given up
  bool pool_stale_ = true;           // there are other workers, or they have other slots
  int rebuilds_ = 0, hellos_ = 0;    // of the pool, of workers: since the last tick
  bool hellos_wait_ = false;         // for the next tick's pass
  // By kind of slot: attempts that started there because it was their turn, not past the first job
  // that waits for such.
  std::map<std::string, int64_t> started_in_order_;
  size_t unfinished_ = 0;
  std::map<std::string, size_t> unfinished_of_;       // by tenant; none without jobs
  absl::Duration next_sweep_ = absl::ZeroDuration();  // of requests_ and workers_, in own time
  absl::Duration next_pass_ = absl::ZeroDuration(), next_queue_save_ = absl::ZeroDuration();

  // Of the step under way.
  StepTime now_;
  Effects effects_;
  std::map<int64_t, Job*> touched_;
  absl::flat_hash_set<JobId> changed_;  // in effects_.changed_jobs; never iterated
  std::vector<const Job*> ended_;       // whose dependents are to be told
  // Of ended_: the end that brought about theirs, where it was not their own.
  std::map<JobId, std::string> causes_;
  bool schedule_ = true;       // something changed that placement depends on
  bool may_grow_ = false;      // it is a regular pass
  bool workers_news_ = false;  // what waiting jobs were told of workers may hold no more
};

}  // namespace ll
