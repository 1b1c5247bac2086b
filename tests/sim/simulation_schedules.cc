// Schedules in a run: some that fire every few minutes through crashes and clock jumps, runs by
// hand, and the verdicts. Each civil time is decided on exactly once, with one job or a reason, and
// a verdict is never taken back.
#include "absl/strings/str_format.h"
#include "tests/sim/simulation_run.h"

namespace ll::sim {
namespace {

const char* RunResultWord(RunResult result) {
  constexpr const char* kWords[] = {"pending",   "baseline", "better", "same",
                                    "regressed", "failed",   "unknown"};
  return kWords[static_cast<int>(result)];
}

}  // namespace

void Simulation::PlanSchedules() {
  const int count = 1 + static_cast<int>(world_.random.Below(3));
  for (int i = 0; i < count; ++i) {
    ScheduleWish wish;
    wish.every = absl::Minutes(2 + static_cast<int64_t>(world_.random.Below(3)));
    ScheduleRecord& record = wish.record;
    record.name = absl::StrCat("schedule-", i);
    record.user = record.body_sha256 = "ann";
    record.cron = absl::StrCat("*/", absl::ToInt64Minutes(wish.every), " * * * *");
    record.time_zone = "UTC";
    record.overlap = static_cast<OverlapPolicy>(world_.random.Below(3));
    const uint64_t policies = record.overlap == OverlapPolicy::kSkip ? 2 : 3;
    record.missed = static_cast<MissedPolicy>(world_.random.Below(policies));
    record.history_limit = kMaxHistoryLimit;
    record.spec.gpus = 1 + static_cast<int>(world_.random.Below(2));
    record.spec.max_headless = kMaxHeadless;
    record.spec.max_retries = 5;
    record.payload = payload_;
    if (world_.Chance(0.4)) PlanGraph(record);
    schedules_[record.name] = wish;
    world_.After(world_.Between(absl::ZeroDuration(), absl::Minutes(2)),
                 [this, name = record.name] { MakeSchedule(name); });
    if (world_.Chance(0.5)) {
      world_.After(world_.Between(absl::Minutes(3), kFaultsLast),
                   [this, name = record.name] { RunByHand(name, JobId()); });
    }
  }
}

// Two jobs in front of the last, as a training in stages has them.
void Simulation::PlanGraph(ScheduleRecord& record) {
  if (!shared_job_store_) record.spec.gpus = 1;
  CoreSpec after = record.spec;
  const JobId train("job-train"), evaluation("job-eval");
  after.after = {train};
  after.source = train;
  record.before = {{train, record.spec, payload_}, {evaluation, after, payload_}};
  record.spec.after = {train, evaluation};
  record.spec.source = train;
}

void Simulation::MakeSchedule(const std::string& name) {
  ScheduleWish& wish = schedules_.at(name);
  Give(SetScheduleEvent{wish.record}, [this, name](const Reply& reply) {
    schedules_.at(name).made = reply.status.ok();
    if (!reply.status.ok())
      world_.Violation(absl::StrCat(name, " is refused: ", reply.status.ToString()));
  });
  world_.After(absl::Seconds(5), [this, name] {
    if (!schedules_.at(name).made) MakeSchedule(name);
  });
}

// Asked again until there is an answer; one request, one job.
void Simulation::RunByHand(const std::string& name, const JobId& before) {
  const JobId id(absl::StrFormat("job-%06d", next_job_++));
  Give(RunScheduleEvent{name, id, "by-hand", "ann"}, [this, name, before](const Reply& reply) {
    const bool lost = world_.Chance(0.3);
    if (reply.status.ok() && !before.empty() && before != reply.job)
      world_.Violation(absl::StrCat(name, " was run by hand twice"));
    if (reply.status.ok()) {
      ++result_.wishes["run of a schedule by hand"];
      if (lost) RunByHand(name, reply.job);
    }
  });
}

// As the coordinator's judge does, with made-up measures.
void Simulation::OnTick(const Scheduler& scheduler) {
  if (storage_.dead()) return;
  if (++ticks_ % 5 == 0) CheckStops(scheduler);
  for (const RunKey& key : scheduler.to_judge()) {
    if (!being_judged_.insert(key).second) continue;
    world_.After(world_.Between(absl::ZeroDuration(), absl::Seconds(5)), [this, key] {
      being_judged_.erase(key);
      JudgeRunEvent event{key.first, key.second, {}};
      event.measures.final_loss = 1.0 + 0.01 * static_cast<double>(world_.random.Below(4));
      Give(event);
    });
  }
}

// A run as it became durable, or as recovery found it.
void Simulation::NoteRun(const std::string& name, const ScheduleRun& run) {
  ScheduleWish& wish = schedules_.at(name);
  const std::string what = absl::StrCat(name, " run ", run.number);
  auto [known, fresh] = wish.runs.try_emplace(run.number, run);
  ScheduleRun& before = known->second;
  if (before.fire_time != run.fire_time || before.job != run.job)
    world_.Violation(absl::StrCat(what, " became another"));
  const bool was_judged = before.judgement.result != RunResult::kPending;
  if (was_judged && before.judgement.result != run.judgement.result)
    world_.Violation(absl::StrCat(what, " was judged twice"));
  if (!was_judged && run.judgement.result != RunResult::kPending)
    ++result_.wishes[absl::StrCat("run judged ", RunResultWord(run.judgement.result))];
  before = run;
  if (fresh) {
    for (const JobId& job : JobIdsOf(run)) {
      if (!scheduled_jobs_.insert(job).second)
        world_.Violation(absl::StrCat(what, " shares a job with another"));
    }
    together_.push_back(JobIdsOf(run));
  }
  if (!fresh || run.manual) return;
  int64_t covered = 0;
  for (absl::Time time = run.first_fire_time; time <= run.fire_time; time += wish.every) {
    ++covered;
    if (time != absl::UnixEpoch() + absl::Floor(time - absl::UnixEpoch(), wish.every))
      world_.Violation(absl::StrCat(what, " is not for a time of its rule"));
    if (!wish.decided.insert(time).second)
      world_.Violation(absl::StrCat(what, " decides on a time twice"));
  }
  if (covered != run.fires && !run.fires_more)
    world_.Violation(absl::StrCat(what, " stands for ", run.fires, " times of ", covered));
  if (!run.job.empty()) {
    ++result_.wishes[run.before.empty() ? "fire with a job" : "fire with several jobs"];
  } else if (run.reason.empty()) {
    world_.Violation(absl::StrCat(what, " is left out without a reason"));
  } else {
    ++result_.wishes["fire left out"];
  }
}

void Simulation::NoteRunsOf(const Scheduler& recovered) {
  for (const auto& [name, wish] : schedules_) {
    const auto schedule = recovered.schedules().find(name);
    if (schedule == recovered.schedules().end()) {
      if (wish.made) world_.Violation(absl::StrCat(name, " was lost"));
      continue;
    }
    for (const auto& [number, run] : schedule->second.runs) NoteRun(name, run);
    if (!wish.runs.empty() && wish.runs.rbegin()->first > schedule->second.record.runs)
      world_.Violation(absl::StrCat("a durable run of ", name, " was lost"));
  }
}

// Whether no schedule fires any more and all their jobs have ended and were judged.
bool Simulation::SchedulesDone() {
  bool done = true;
  for (const auto& [name, schedule] : scheduler()->schedules()) {
    if (!schedule.record.paused) {
      Give(PauseScheduleEvent{name, true, "ann"});
      done = false;
    }
    for (const auto& [number, run] : schedule.runs) {
      for (const JobId& id : JobIdsOf(run)) {
        const Job* job = scheduler()->Find(id);
        if (job != nullptr && !IsTerminal(job->state)) done = false;
      }
    }
  }
  return done && scheduler()->to_judge().empty();
}

// Between the first and the newest time that was decided on none is missing.
void Simulation::CheckSchedules() {
  for (const auto& [name, wish] : schedules_) {
    if (!wish.made) world_.Violation(absl::StrCat(name, " was never made"));
    if (wish.decided.empty()) continue;
    const absl::Duration span = *wish.decided.rbegin() - *wish.decided.begin();
    if (static_cast<int64_t>(wish.decided.size()) != span / wish.every + 1)
      world_.Violation(absl::StrCat(name, " has left a time undecided"));
  }
}

}  // namespace ll::sim
