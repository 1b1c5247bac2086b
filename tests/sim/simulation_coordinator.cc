// The coordinator's process: batches, transactions, crashes, and what every decision is checked
// for.
#include "tests/sim/simulation_run.h"

namespace ll::sim {

void Simulation::StartCoordinator() {
  SchedulerOptions options;
  options.nonce_seed = absl::StrCat("life ", ++life_);
  options.shared_job_store = shared_job_store_;
  options.start_deadline = absl::Seconds(90);
  options.finish_deadline = absl::Seconds(60);
  options.stop_grace = absl::Seconds(20);
  options.min_runtime = absl::Seconds(20);
  options.half_life = absl::Minutes(5);
  auto stored = store_.LoadAll();
  absl::StatusOr<Scheduler> scheduler = stored.ok() ? absl::UnknownError("") : stored.status();
  if (stored.ok()) {
    scheduler = Scheduler::Recover(std::move(stored).value(), options, {world_.now(), Wall()});
  }
  if (!scheduler.ok()) {
    world_.Violation(
        absl::StrCat("the coordinator cannot start: ", std::string(scheduler.status().message())));
    store_ = MemStore();  // so that the run can end
    StartCoordinator();
    return;
  }
  world_.Trace(absl::StrCat("coordinator starts, life ", life_));
  scheduler_ = std::make_unique<Scheduler>(std::move(scheduler).value());
  scheduler_->CheckInvariants();
  states_.clear();
  for (const Job* job : scheduler_->List({SIZE_MAX})) states_[job->id] = job->state;
  Tick(life_);
}

void Simulation::CrashCoordinator(const char* where) {
  if (scheduler_ == nullptr) return;
  ++result_.coordinator_crashes;
  world_.Trace(absl::StrCat("fault: coordinator dies ", where));
  scheduler_ = nullptr;
  inbox_.clear();
  ++life_;
  std::vector<uint64_t> open;
  for (const auto& [id, session] : sessions_) open.push_back(id);
  for (uint64_t id : open) {
    sessions_[id].coordinator_side = false;
    EndSession(id, world_.Between(absl::ZeroDuration(), absl::Seconds(2)), absl::ZeroDuration());
  }
  world_.After(world_.Between(absl::Milliseconds(300), absl::Seconds(20)),
               [this] { StartCoordinator(); });
}

void Simulation::Tick(uint64_t life) {
  if (scheduler_ == nullptr || life != life_) return;
  Give(TickEvent{});
  world_.After(absl::Seconds(1), [this, life] { Tick(life); });
}

// Events that arrive within a moment share a transaction, as in the driver.
void Simulation::Give(Event event, std::function<void(const Reply&)> reply) {
  if (scheduler_ == nullptr) return;
  inbox_.push_back({std::move(event), std::move(reply)});
  if (std::exchange(planned_batch_, true)) return;
  world_.After(world_.Between(absl::ZeroDuration(), absl::Milliseconds(5)), [this] {
    planned_batch_ = false;
    if (scheduler_ != nullptr) ProcessBatch();
  });
}

void Simulation::ProcessBatch() {
  if (world_.now() < stalled_until_) {
    planned_batch_ = true;
    world_.After(stalled_until_ - world_.now(), [this] {
      planned_batch_ = false;
      if (scheduler_ != nullptr) ProcessBatch();
    });
    return;
  }
  std::vector<Input> batch = std::move(inbox_);
  inbox_.clear();
  std::vector<Record> records;
  std::vector<Effects> all;
  for (const Input& input : batch) {
    all.push_back(scheduler_->Step(input.event, world_.now(), Wall()));
    ++result_.steps;
    for (Record& record : all.back().records) {
      const auto* put = std::get_if<PutTransition>(&record);
      if (put != nullptr) CheckTransition(*put);
      records.push_back(std::move(record));
    }
    scheduler_->CheckInvariants();
  }
  const auto send_all = [&] {
    for (const Effects& effects : all) {
      for (const ll::Send& send : effects.sends) {
        CheckSend(send);
        Deliver(send);
      }
    }
  };
  if (options_.bug == Bug::kSendBeforePersist) send_all();
  if (faults_ && !records.empty() && world_.Chance(crash_rate_)) {
    Struck("coordinator dies before its commit");
    return CrashCoordinator("before its commit");
  }
  if (options_.bug == Bug::kStoreDropsACommit && !bug_done_ && !records.empty() &&
      world_.now() > absl::Seconds(30)) {
    bug_done_ = true;
    store_.DropNext();
  }
  if (faults_ && world_.Chance(crash_rate_ / 8)) {
    Struck("disk full");
    store_.FailNext(absl::ResourceExhaustedError("disk full"));
  }
  if (!store_.Commit(records).ok()) return CrashCoordinator("since its commit failed");
  for (const Effects& effects : all) NoteDurable(effects);
  if (faults_ && !records.empty() && world_.Chance(crash_rate_)) {
    Struck("coordinator dies after its commit, before sending");
    return CrashCoordinator("after its commit, before sending");
  }
  if (options_.bug != Bug::kSendBeforePersist) send_all();
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].reply) batch[i].reply(all[i].reply);
  }
}

void Simulation::NoteDurable(const Effects& effects) {
  for (const JobId& id : effects.changed_jobs) {
    const Job* job = scheduler_->Find(id);
    if (job == nullptr) continue;
    world_.Trace(absl::StrCat(id.value(), " ", std::string(JobStateName(job->state)), " epoch ",
                              job->epoch, ": ", job->reason, " | ", job->wait_reason));
    if (job->newest_checkpoint.has_value()) durable_checkpoint_[id] = job->newest_checkpoint->step;
  }
}

// Limits of queues, and that two jobs do not stop each other in turn.
void Simulation::CheckTransition(const PutTransition& put) {
  const JobState state = put.transition.state;
  auto before = states_.find(put.job);
  if (before != states_.end()) {
    ++result_.transitions[{before->second, state}];
    if (!MayTransition(before->second, state)) {
      world_.Violation(absl::StrCat(put.job.value(), " goes from ", JobStateName(before->second),
                                    " to ", JobStateName(state)));
    }
  }
  states_[put.job] = state;
  if (state == JobState::kStarting) {
    ++result_.attempts;
    CheckLimitsOf(put.job);
  }
  if (state != JobState::kPreempting) return;
  ++result_.preemptions;
  const Job* victim = scheduler_->Find(put.job);
  if (victim->preempted_by.empty()) return;  // a drain
  const Job* by = scheduler_->Find(victim->preempted_by);
  auto turned = preempted_by_.find(by->id);
  if (turned != preempted_by_.end() && turned->second == victim->id) {
    world_.Violation(
        absl::StrCat(by->id.value(), " preempts ", victim->id.value(), ", which preempted it"));
  }
  if (by->spec.queue == victim->spec.queue && by->spec.priority <= victim->spec.priority) {
    world_.Violation(absl::StrCat(by->id.value(), " preempts ", victim->id.value(),
                                  " of its queue without a higher priority"));
  }
  preempted_by_[victim->id] = by->id;
}

void Simulation::CheckLimitsOf(const JobId& started) {
  const std::string name = scheduler_->Find(started)->spec.queue;
  int gpus = 0, jobs = 0;
  for (const Job* job : scheduler_->List({SIZE_MAX})) {
    if (job->spec.queue != name || !HoldsSlots(job->state)) continue;
    gpus += job->spec.gpus;
    ++jobs;
  }
  for (const QueueRecord& queue : queues_) {
    if (queue.name != name) continue;
    if (gpus > queue.max_gpus.value_or(gpus) || jobs > queue.max_jobs.value_or(jobs)) {
      world_.Violation(absl::StrCat("queue ", name, " holds ", gpus, " GPUs with ", jobs,
                                    " jobs, beyond its limits"));
    }
  }
}

// What an order promises, checked when it leaves.
void Simulation::CheckSend(const ll::Send& send) {
  const auto* start = std::get_if<StartGangOrder>(&send.order);
  if (start == nullptr) return;
  world_.Trace(
      absl::StrCat("start ", start->job.value(), "/", start->epoch, " at ", send.worker.value()));
  for (const auto& [epoch, host] : training_.Living(start->job)) {
    const auto worker = scheduler_->workers().find(WorkerId(host));
    if (epoch < start->epoch && worker != scheduler_->workers().end() && worker->second.connected &&
        !Partitioned(**std::find_if(agents_.begin(), agents_.end(), [&h = host](const auto& agent) {
          return agent->name().value() == h;
        }))) {
      world_.Violation(absl::StrCat(start->job.value(), " epoch ", start->epoch,
                                    " starts while epoch ", epoch, " lives on ", host,
                                    ", which is in contact"));
    }
  }
  auto durable = durable_checkpoint_.find(start->job);
  const int64_t from = start->resume_from.has_value() ? start->resume_from->step : 0;
  if (durable != durable_checkpoint_.end() && from < durable->second &&
      options_.bug == Bug::kNone) {
    const Job* job = scheduler_->Find(start->job);
    // A repeated order may be older than the newest checkpoint of its own attempt.
    if (!job->newest_checkpoint.has_value() || job->newest_checkpoint->epoch < start->epoch) {
      world_.Violation(absl::StrCat(start->job.value(), " resumes from step ", from,
                                    ", durable was ", durable->second));
    }
  }
}

}  // namespace ll::sim
