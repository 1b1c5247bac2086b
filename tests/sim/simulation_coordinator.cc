// The coordinator's process: the shipped loop with its store, crashes, and what every decision is
// checked for.
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "coordinator/workers/messages.h"
#include "tests/sim/simulation_run.h"

namespace ll::sim {

void Simulation::StartCoordinator() {
  DriverOptions options;
  options.scheduler.nonce_seed = absl::StrCat("life ", ++life_);
  options.scheduler.shared_job_store = shared_job_store_;
  options.scheduler.start_deadline = absl::Seconds(90);
  options.scheduler.finish_deadline = absl::Seconds(60);
  options.scheduler.stop_grace = absl::Seconds(20);
  options.scheduler.min_runtime = absl::Seconds(20);
  options.scheduler.half_life = absl::Minutes(5);
  options.scheduler.elastic = {absl::Seconds(10), kResizeInterval, absl::Seconds(5)};
  options.open_store = [this] { return storage_.Open(); };
  loop_ = std::make_unique<DriverLoop>(std::move(options), *this);
  loop_->SetGateway(this);
  loop_->AddListener(this);
  world_.Trace(absl::StrCat("coordinator starts, life ", life_));
  const int64_t strikes = storage_.strikes();
  const absl::Status status = loop_->Start();
  if (status.ok() && !storage_.dead()) return PlanTick(life_);
  if (storage_.dead() || storage_.strikes() > strikes) return BuryCoordinator();
  world_.Violation(absl::StrCat("the coordinator cannot start: ", std::string(status.message())));
  loop_ = nullptr;
  storage_.Wipe();
  StartCoordinator();
}

void Simulation::CrashCoordinator(const char* where) {
  if (loop_ == nullptr) return;
  world_.Trace(absl::StrCat("fault: coordinator dies ", where));
  storage_.Die();
  BuryCoordinator();
}

bool Simulation::DiesHere(const char* where, double rate) {
  if (storage_.dead()) return true;
  if (!faults_ || !world_.Chance(rate)) return false;
  Struck(where);
  world_.Trace(absl::StrCat("fault: ", where));
  storage_.Die();
  return true;
}

// The process is gone; another will be started.
void Simulation::BuryCoordinator() {
  ++result_.coordinator_crashes;
  loop_ = nullptr;
  storage_.Restart();
  inbox_.clear();
  ++life_;
  EndAllSessions(absl::OkStatus());
  world_.After(world_.Between(absl::Milliseconds(300), absl::Seconds(20)),
               [this] { StartCoordinator(); });
}

void Simulation::EndAllSessions(const absl::Status&) {
  if (storage_.dead()) return;
  std::vector<uint64_t> open;
  for (const auto& [id, session] : sessions_) {
    if (session.coordinator_side) open.push_back(id);
  }
  for (uint64_t id : open) {
    sessions_[id].coordinator_side = false;
    EndSession(id, world_.Between(absl::ZeroDuration(), absl::Seconds(2)), absl::ZeroDuration());
  }
}

// As the driver's thread wakes for the tick.
void Simulation::PlanTick(uint64_t life) {
  world_.After(std::max(absl::ZeroDuration(), loop_->next_tick() - world_.now()), [this, life] {
    if (loop_ == nullptr || life != life_) return;
    if (world_.now() >= std::max(loop_->next_tick(), stalled_until_)) RunBatch();
    if (loop_ == nullptr || life != life_) return;
    if (world_.now() < stalled_until_) {
      world_.After(stalled_until_ - world_.now(), [this, life] {
        if (loop_ != nullptr && life == life_) PlanTick(life);
      });
    } else {
      PlanTick(life);
    }
  });
}

void Simulation::Give(Event event, std::function<void(const Reply&)> reply) {
  DriverLoop::Item item{std::move(event), nullptr, nullptr};
  if (reply) {
    item.answer = [this, reply = std::move(reply)](const Reply& answer, const Scheduler* view) {
      if (DiesHere("coordinator dies between two answers", crash_rate_)) return;
      // A client that hears of a failure asks again, as one that hears nothing.
      if (view == nullptr) return Struck("answer is that the store cannot be used");
      world_.After(batch_delay_, [reply, answer] { reply(answer); });
    };
  }
  Put(std::move(item));
}

void Simulation::GiveOfAgent(Event event, std::function<void()> done) {
  Put({std::move(event), nullptr, std::move(done)});
}

// Events that arrive within a moment share a transaction, as in the driver.
void Simulation::Put(DriverLoop::Item item) {
  if (loop_ == nullptr) return;
  inbox_.push_back(std::move(item));
  if (std::exchange(planned_batch_, true)) return;
  world_.After(world_.Between(absl::ZeroDuration(), absl::Milliseconds(5)), [this] {
    planned_batch_ = false;
    if (loop_ != nullptr) RunBatch();
  });
}

void Simulation::RunBatch() {
  if (world_.now() < stalled_until_) {
    if (std::exchange(planned_batch_, true)) return;
    world_.After(stalled_until_ - world_.now(), [this] {
      planned_batch_ = false;
      if (loop_ != nullptr) RunBatch();
    });
    return;
  }
  std::vector<DriverLoop::Item> batch = std::move(inbox_);
  inbox_.clear();
  loop_->Run(batch);
  if (storage_.dead()) return BuryCoordinator();
  // The loop waits for its disk.
  if (batch_delay_ > absl::ZeroDuration()) stalled_until_ = world_.now() + batch_delay_;
  batch_delay_ = absl::ZeroDuration();
}

void Simulation::OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration) {
  ++result_.steps;
  for (const Record& record : effects.records) {
    if (const auto* put = std::get_if<PutTransition>(&record)) CheckTransition(*put);
  }
  for (const Record& record : effects.records) {
    const auto* put = std::get_if<PutTransition>(&record);
    if (put != nullptr && put->transition.state == JobState::kStarting)
      CheckPromise(*scheduler.Find(put->job));
  }
  scheduler.CheckInvariants();
  CheckHeld(scheduler);
}

// The scheduler was built from the store: nothing durable is missing, nothing refused is there.
void Simulation::OnServing(const absl::Status& status) {
  if (!status.ok() || storage_.dead()) return;
  const Scheduler& recovered = *loop_->scheduler();
  recovered.CheckInvariants();
  states_.clear();
  // What was decided but never durable is as if it had not been.
  preempted_by_.clear();
  for (const Job* job : recovered.List({SIZE_MAX})) {
    states_[job->id] = job->state;
    if (!job->preempted_by.empty()) preempted_by_[job->id] = job->preempted_by;
  }
  for (const auto& [id, epoch] : durable_epoch_) {
    const Job* job = recovered.Find(id);
    if (job == nullptr || job->epoch < epoch)
      world_.Violation(absl::StrCat("durable ", id.value(), "/", epoch, " was lost"));
  }
  if (!world_.violations.empty()) durable_epoch_.clear();  // said once
  for (const JobId& id : refused_) {
    if (recovered.Find(id) != nullptr)
      world_.Violation(absl::StrCat(id.value(), " was refused but is there"));
  }
  refused_.clear();
  CheckTogether([&](const JobId& id) { return recovered.Find(id) != nullptr; }, "in the store");
  NoteRunsOf(recovered);
}

void Simulation::Deliver(const ll::Send& send, int64_t term) {
  if (DiesHere("coordinator dies between two orders", crash_rate_ / 8)) return;
  CheckSend(send);
  if (const auto* start = std::get_if<StartGangOrder>(&send.order)) CheckSource(send, *start);
  auto it = sessions_.find(send.session);
  if (it == sessions_.end()) return;
  Session& session = it->second;
  if (std::holds_alternative<RejectHelloOrder>(send.order)) {
    session.coordinator_side = false;
    return EndSession(send.session, absl::Milliseconds(20), absl::ZeroDuration());
  }
  v1::CoordinatorMessage message = OrderToProto(send, loop_->scheduler()->options());
  if (message.has_welcome()) {
    // The hub ends an older stream of the same worker.
    for (auto& [id, other] : sessions_) {
      if (other.host == session.host && id < send.session) other.coordinator_side = false;
    }
    for (const auto& [job, epoch, rank] : session.held) {
      for (const auto stream : {v1::Telemetry::EVENTS, v1::Telemetry::LOG}) {
        v1::TelemetryAck& ack = *message.mutable_welcome()->add_telemetry();
        ack.set_job_id(job);
        ack.set_epoch(epoch);
        ack.set_rank(rank);
        ack.set_stream(stream);
        ack.set_offset(telemetry_[{job, epoch, rank, stream}]);
      }
    }
  }
  world_.After(batch_delay_, [this, id = send.session, message = std::move(message), life = life_] {
    if (life == life_) Post(id, message);
  });
}

void Simulation::NoteDurable(absl::Span<const Record> records) {
  batch_delay_ = storage_.TakeDelay();
  for (const Record& record : records) {
    if (const auto* run = std::get_if<PutScheduleRun>(&record)) NoteRun(run->schedule, run->run);
    const auto* put = std::get_if<PutJob>(&record);
    if (put == nullptr) continue;
    const Job& job = put->job;
    world_.Trace(absl::StrCat(job.id.value(), " ", JobStateName(job.state), " epoch ", job.epoch,
                              ": ", job.reason, " | ", job.wait_reason));
    if (job.newest_checkpoint.has_value())
      durable_checkpoint_[job.id] = job.newest_checkpoint->step;
    durable_epoch_[job.id] = job.epoch;
    NoteResize(job);
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
  if (state == JobState::kStarting) CheckStart(*scheduler()->Find(put.job));
  if (state != JobState::kPreempting) return;
  const Job* victim = scheduler()->Find(put.job);
  if (victim->resize_to > RanksOf(*victim)) {  // nobody stops it
    ++result_.wishes["elastic gang stops to grow"];
    return;
  }
  if (victim->resize_to > 0) ++result_.wishes["elastic gang shrinks for another job"];
  ++result_.preemptions;
  if (victim->preempted_by.empty()) return;  // a drain
  const Job* by = scheduler()->Find(victim->preempted_by);
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
  if (limits_change_ && by->spec.queue != victim->spec.queue && world_.Chance(0.5))
    TurnLimitsWhenItRuns(victim->id, by->id, world_.now() + absl::Minutes(2));
}

// As the scheduler decides, not as the orders leave: an agent's Hello may be decided in between,
// in the same batch.
void Simulation::CheckStart(const Job& job) {
  ++result_.attempts;
  for (const auto& [epoch, host, doomed] : training_.Living(job.id)) {
    if (epoch < job.epoch && InContact(WorkerId(host)))
      world_.Violation(absl::StrCat(job.id.value(), " epoch ", job.epoch, " starts while epoch ",
                                    epoch, " lives on ", host, ", which is in contact"));
  }
  // The coordinator waits for the word of those it can reach, not for what it believes of them.
  for (const auto& [name, worker] : scheduler()->workers()) {
    for (const auto& [slot, use] : worker.uses) {
      if (use.stray && use.job == job.id && InContact(name))
        world_.Violation(absl::StrCat(job.id.value(), " epoch ", job.epoch, " starts before ",
                                      name.value(), " has said that epoch ", use.epoch, " ended"));
    }
  }
  for (const Rank& rank : job.attempt->ranks) {
    for (const auto& host : hosts_) {
      if (host->name() == rank.worker && host->Busy(rank.slot))
        world_.Violation(absl::StrCat(job.id.value(), " starts on ", rank.worker.value(), "/",
                                      rank.slot, ", where another rank still lives"));
    }
  }
  CheckTypes(job);
  const int ranks = RanksOf(job);
  auto [known, first] = ranks_.try_emplace(job.id, ranks);
  if (!first && ranks > known->second) ++result_.wishes["elastic gang starts again larger"];
  if (!first && ranks < known->second) ++result_.wishes["elastic gang starts again smaller"];
  known->second = ranks;
  CheckLimitsOf(job);
}

// What runs on an agent in contact is held in the scheduler's books by the same attempt: a slot
// that they call free would be given away. Once said, it would be said after every step.
void Simulation::CheckHeld(const Scheduler& scheduler) {
  if (!world_.violations.empty()) return;
  auto known = scheduler.workers().begin();
  for (const SimHost* host : by_name_) {
    if (host->busy_slots().empty()) continue;
    while (known != scheduler.workers().end() && known->first < host->name()) ++known;
    if (known == scheduler.workers().end()) return;
    const Worker& worker = known->second;
    const bool in_contact = known->first == host->name() && worker.connected &&
                            worker.session == host->session() &&
                            worker.silence <= scheduler.options().lease;
    if (!in_contact) continue;
    for (const auto& [slot, running] : host->busy_slots()) {
      const auto use = worker.uses.find(slot);
      if (use != worker.uses.end() && use->second.job == running.gang.first &&
          use->second.epoch == running.gang.second)
        continue;
      world_.Violation(absl::StrCat(host->name().value(), "/", slot, ", which runs ",
                                    running.gang.first.value(), "/", running.gang.second,
                                    ", is held by ",
                                    use == worker.uses.end() ? "nobody" : use->second.job.value()));
    }
  }
}

// A gang is of one type, and of one that its user named.
void Simulation::CheckTypes(const Job& job) {
  std::set<std::string> kinds;
  for (const Rank& rank : job.attempt->ranks) {
    for (const Slot& slot : scheduler()->workers().at(rank.worker).slots) {
      if (slot.index == rank.slot) kinds.insert(slot.kind);
    }
  }
  const std::vector<std::string>& named = job.spec.slot_kinds;
  if (kinds.size() != 1 ||
      (!named.empty() && std::count(named.begin(), named.end(), *kinds.begin()) == 0)) {
    world_.Violation(absl::StrCat(job.id.value(), " starts on slots of ",
                                  absl::StrJoin(kinds, " and "), ", named was ",
                                  absl::StrJoin(named, " or ")));
  }
  if (!named.empty()) ++result_.wishes["start on the type that a job names"];
}

// As the scheduler has it: heard within the lease, on a stream that is there.
bool Simulation::InContact(const WorkerId& name) const {
  const auto worker = scheduler()->workers().find(name);
  return worker != scheduler()->workers().end() && worker->second.connected &&
         worker->second.silence <= scheduler()->options().lease;
}

// A gang that is told to stop is off its slots soon, however often an order or an answer is lost:
// the time counts while every agent is in contact.
void Simulation::CheckStops(const Scheduler& scheduler) {
  constexpr absl::Duration kLong = absl::Minutes(4);
  for (const Job* job : scheduler.List({SIZE_MAX})) {
    const bool stops = HoldsSlots(job->state) && job->attempt->stop != StopKind::kNone;
    const bool reached =
        stops && std::all_of(job->attempt->ranks.begin(), job->attempt->ranks.end(),
                             [this](const Rank& rank) { return InContact(rank.worker); });
    if (!reached || world_.now() < stalled_until_) {
      stops_.erase(job->id);
      continue;
    }
    auto& [epoch, since] = stops_.try_emplace(job->id, job->epoch, world_.now()).first->second;
    if (epoch != job->epoch) std::tie(epoch, since) = std::pair(job->epoch, world_.now());
    if (world_.now() - since < kLong) continue;
    world_.Violation(absl::StrCat(job->id.value(),
                                  " was told to stop and still holds its slots: ", job->reason));
    stops_.erase(job->id);
  }
}

// The queue stays within its limits, and what an elastic gang has beyond its minimum within the
// queue's own quota.
void Simulation::CheckLimitsOf(const Job& started) {
  const std::string& name = started.spec.queue;
  int gpus = 0, jobs = 0;
  for (const Job* job : scheduler()->List({SIZE_MAX})) {
    if (job->spec.queue != name || !HoldsSlots(job->state)) continue;
    gpus += RanksOf(*job);
    ++jobs;
  }
  if (const Queue* of = scheduler()->fair_share().Find(name)) {
    const QueueRecord& queue = of->record;
    const bool borrows = gpus > queue.quota_gpus.value_or(gpus);
    if (gpus > queue.max_gpus.value_or(gpus) || jobs > queue.max_jobs.value_or(jobs)) {
      world_.Violation(absl::StrCat("queue ", name, " holds ", gpus, " GPUs with ", jobs,
                                    " jobs, beyond its limits"));
    } else if (borrows && RanksOf(started) > started.spec.gpus) {
      world_.Violation(absl::StrCat(started.id.value(), " borrows for more than its minimum"));
    }
  }
}

// Bounded priority inversion: who starts past a job that was promised a start leaves it, by what
// the forecasts say, enough slots of one type by then. Counted afresh, where any slot of a type
// will do for the job.
void Simulation::CheckPromise(const Job& started) {
  constexpr absl::Duration kSlack = absl::Minutes(1);  // a promise may slip so far
  if (!shared_job_store_) return;
  const bool hole = absl::StrContains(started.reason, "; to end before ");
  if (!hole && !absl::StrContains(started.reason, "; on slots that job-")) return;
  for (const Job* head : scheduler()->List({SIZE_MAX, INT64_MAX, {JobState::kQueued}})) {
    if (head->promised_start == absl::InfiniteDuration() ||
        !absl::StrContains(started.reason, hole ? absl::StrCat("before ", head->id.value())
                                                : absl::StrCat("that ", head->id.value())))
      continue;
    const std::vector<std::string>& named = head->spec.slot_kinds;
    const auto may_use = [&named](const std::string& kind) {
      return named.empty() || std::count(named.begin(), named.end(), kind) > 0;
    };
    if (!may_use(started.attempt->slot_kind)) continue;  // no slot that it waits for
    std::map<std::string, int> by_type;
    for (const auto& [name, worker] : scheduler()->workers()) {
      const bool away = worker.silence > scheduler()->options().lease || !worker.connected;
      if (away || worker.cordoned) continue;
      for (const Slot& slot : worker.slots) {
        if (!may_use(slot.kind)) continue;
        const auto use = worker.uses.find(slot.index);
        by_type[slot.kind] +=
            use == worker.uses.end() ||
            (!use->second.stray &&
             scheduler()->Find(use->second.job)->expected_end <= head->promised_start + kSlack);
      }
    }
    int by_then = 0;
    for (const auto& [kind, count] : by_type) by_then = std::max(by_then, count);
    ++result_.wishes[hole ? "start into a hole" : "start beside a reservation"];
    if (by_then < head->spec.gpus)
      world_.Violation(absl::StrCat(started.id.value(), " starts although it leaves ",
                                    head->id.value(), " only ", by_then, " of ", head->spec.gpus,
                                    " slots when it was promised its start"));
  }
}

// A gang does not flap: it grows only when its size has been the same for a while. The scheduler's
// own time stands still between two ticks, so a change that an event in between brings counts from
// the tick before it, and a growth, which a tick brings, may come early by what the next tick adds.
void Simulation::NoteResize(const Job& durable) {
  auto [known, first] = resizes_.try_emplace(durable.id, 0, -absl::InfiniteDuration());
  auto& [count, when] = known->second;
  if (durable.resizes == count) return;
  const bool grows = durable.resize_to > RanksOf(durable);
  if (grows && world_.now() - when < kResizeInterval - SchedulerTime::kMaxTickStep)
    world_.Violation(absl::StrCat(durable.id.value(), " grows ",
                                  absl::FormatDuration(world_.now() - when), " after a change"));
  known->second = {durable.resizes, world_.now()};
}

// Of the newest attempt: those of earlier ones are acknowledged so that their agents forget them.
void Simulation::NoteAcknowledged(const WorkerId& worker, const ReportAckOrder& ack) {
  const Job* job = scheduler()->Find(ack.job);
  const auto told = reported_.find({worker, ack.job.value(), ack.epoch});
  if (job == nullptr || job->epoch != ack.epoch || told == reported_.end()) return;
  auto& steps = told->second;
  int64_t& newest = acknowledged_[ack.job][ack.epoch];
  while (!steps.empty() && steps.begin()->first <= ack.sequence) {
    newest = std::max(newest, steps.begin()->second);
    steps.erase(steps.begin());
  }
}

// What an order promises, checked when it leaves.
void Simulation::CheckSend(const ll::Send& send) {
  if (const auto* ack = std::get_if<ReportAckOrder>(&send.order))
    NoteAcknowledged(send.worker, *ack);
  if (const auto* release = std::get_if<ReleaseGangOrder>(&send.order)) {
    for (const auto& [epoch, host, doomed] : training_.Living(release->job)) {
      if (epoch == release->epoch && host == send.worker.value())
        world_.Violation(absl::StrCat("release of a running gang of ", release->job.value()));
    }
  }
  const auto* start = std::get_if<StartGangOrder>(&send.order);
  if (start == nullptr) return;
  int64_t& ordered = ordered_epoch_[start->job];
  if (start->epoch < ordered)
    world_.Violation(
        absl::StrCat(start->job.value(), "/", start->epoch, " is ordered after epoch ", ordered));
  ordered = std::max(ordered, start->epoch);
  world_.Trace(
      absl::StrCat("start ", start->job.value(), "/", start->epoch, " at ", send.worker.value()));
  auto durable = durable_checkpoint_.find(start->job);
  const int64_t from = start->resume_from.has_value() ? start->resume_from->step : 0;
  for (const auto& [epoch, step] : acknowledged_[start->job]) {
    if (epoch < start->epoch && from < step && options_.bug == Bug::kNone)
      world_.Violation(absl::StrCat(start->job.value(), " resumes from step ", from,
                                    ", acknowledged was ", step, " of epoch ", epoch));
  }
  if (durable != durable_checkpoint_.end() && from < durable->second &&
      options_.bug == Bug::kNone) {
    const Job* job = scheduler()->Find(start->job);
    // A repeated order may be older than the newest checkpoint of its own attempt.
    if (!job->newest_checkpoint.has_value() || job->newest_checkpoint->epoch < start->epoch) {
      world_.Violation(absl::StrCat(start->job.value(), " resumes from step ", from,
                                    ", durable was ", durable->second));
    }
  }
}

}  // namespace ll::sim
