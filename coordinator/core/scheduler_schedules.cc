// Schedules: what users say of them, what comes due, and what became of the runs.
//
// A fire and its jobs are one step: the jobs' records and the schedule's next_fire are in the same
// transaction, so a crash before it loses both and one after it neither. The request id, which says
// schedule and fire time, keeps a time from being fired twice even where next_fire went back (a
// schedule made anew after the wall clock was set back).
#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/sha256.h"
#include "coordinator/core/due_fires.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

// The record of a run's job stays at least so long, so that the run can be judged by it.
constexpr absl::Duration kKeepForVerdict = absl::Minutes(1);

std::string ShowTime(absl::Time time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", time, absl::UTCTimeZone());
}

absl::Status CheckTolerance(absl::string_view field, double value) {
  if (std::isfinite(value) && value >= 0 && value <= 100) return absl::OkStatus();
  return MakeFieldError({field, "a ratio from 0 to 100, such as 0.01", absl::StrCat(value)});
}

absl::Status CheckSettings(const ScheduleRecord& record) {
  if (record.history_limit < 1 || record.history_limit > kMaxHistoryLimit) {
    return MakeFieldError({"history_limit", absl::StrCat("1 to ", kMaxHistoryLimit),
                           absl::StrCat(record.history_limit)});
  }
  if (record.start_within < kFireOnTime) {
    return MakeFieldError(
        {"start_within", "at least a minute", HumanDuration(record.start_within)});
  }
  if (record.missed == MissedPolicy::kAll && record.overlap == OverlapPolicy::kSkip) {
    return MakeFieldError({"overlap", "queue or cancel_old where missed is all", "skip",
                           "runs that are made up for come at once and would be left out"});
  }
  for (const auto& [field, value] :
       {std::pair("tolerance_loss", record.tolerances.loss),
        std::pair("tolerance_perplexity", record.tolerances.perplexity),
        std::pair("tolerance_tokens_per_second", record.tolerances.tokens_per_second),
        std::pair("tolerance_memory", record.tolerances.memory)}) {
    if (absl::Status bad = CheckTolerance(field, value); !bad.ok()) return bad;
  }
  return absl::OkStatus();
}

JobId HashedId(const std::string& text) { return JobId("job-" + Sha256Hex(text).substr(0, 12)); }

// All but the last.
std::vector<JobId> OthersOf(const SubmitAllEvent& submit) {
  std::vector<JobId> ids;
  for (const Submission& job : submit.jobs) ids.push_back(job.job);
  ids.pop_back();
  return ids;
}

bool WaitsForOneOf(const Submission& job, const std::vector<Submission>& jobs) {
  return std::any_of(jobs.begin(), jobs.end(), [&job](const Submission& other) {
    const auto names = [&other](const std::vector<JobId>& ids) {
      return std::find(ids.begin(), ids.end(), other.job) != ids.end();
    };
    return names(job.spec.after) || names(job.spec.after_any);
  });
}

// Fills what is derived from the record.
absl::Status LoadRule(Schedule& schedule) {
  auto rule = Cron::Parse(schedule.record.cron);
  if (!rule.ok()) return rule.status();
  auto zone = LoadZone(schedule.record.time_zone);
  if (!zone.ok()) return zone.status();
  schedule.rule = *std::move(rule);
  schedule.zone = *zone;
  return absl::OkStatus();
}

}  // namespace

Schedule* Scheduler::FindScheduleOrReply(const std::string& name) {
  auto it = schedules_.by_name.find(name);
  if (it != schedules_.by_name.end()) return &it->second;
  effects_.reply.status = FieldStatus(absl::StatusCode::kNotFound, "schedule",
                                      absl::StrCat("there is no schedule ", OneLine(name)),
                                      "llctl schedule list shows the schedules");
  return nullptr;
}

// Whether it can fire, and when, is said by `due` alone.
void Scheduler::SaveSchedule(Schedule& schedule, absl::Time next_fire) {
  ScheduleRecord& record = schedule.record;
  schedules_.due.erase({record.next_fire, record.name});
  record.next_fire = next_fire;
  if (!record.paused && schedule.rule.has_value())
    schedules_.due.insert({record.next_fire, record.name});
  effects_.records.push_back(PutSchedule{record});
}

// ---- users

void Scheduler::On(const SetScheduleEvent& event) {
  const ScheduleRecord& wanted = event.schedule;
  auto known = schedules_.by_name.find(wanted.name);
  if (known != schedules_.by_name.end() && !event.replace) {
    effects_.reply.existed = known->second.record.body_sha256 == wanted.body_sha256;
    if (effects_.reply.existed) return;  // a repeat
    effects_.reply.status = FieldStatus(absl::StatusCode::kAlreadyExists, "name",
                                        absl::StrCat("there is another schedule ", wanted.name),
                                        "replace it with --replace");
    return;
  }
  Schedule made;
  made.record = wanted;
  made.record.created = now_.wall;
  absl::Status& status = effects_.reply.status;
  status = CheckSettings(wanted);
  if (status.ok()) status = LoadRule(made);
  // What its jobs will be refused for is refused now.
  if (status.ok()) {
    SubmitAllEvent submit = SubmitOf(made.record, "", JobId());
    submit.access.all = event.access.all;
    status = CheckSubmit(submit);
  }
  if (status.ok() && known == schedules_.by_name.end() &&
      schedules_.by_name.size() >= kMaxSchedules) {
    status = absl::ResourceExhaustedError(
        absl::StrCat("there are ", schedules_.by_name.size(), " schedules, the limit"));
  }
  if (status.ok() && known == schedules_.by_name.end() && event.quota.schedules > 0) {
    const auto has = static_cast<size_t>(std::count_if(
        schedules_.by_name.begin(), schedules_.by_name.end(),
        [&](const auto& entry) { return entry.second.record.tenant == wanted.tenant; }));
    if (has >= event.quota.schedules) {
      status = absl::ResourceExhaustedError(
          absl::StrCat("your tenant has ", has, " schedules, its limit"));
    }
  }
  if (!status.ok()) return;
  made.record.paused = false;
  made.record.paused_by.clear();
  made.record.last_fire = absl::InfinitePast();
  made.record.runs = 0;
  made.record.reference = 0;  // another job is not compared with the old one's runs
  if (known != schedules_.by_name.end()) {
    const ScheduleRecord& old = known->second.record;
    DropReference(known->second);
    made.record.last_fire = old.last_fire;
    made.record.runs = old.runs;
    made.runs = std::move(known->second.runs);
    schedules_.due.erase({old.next_fire, old.name});
  }
  Schedule& schedule = schedules_.by_name[wanted.name] = std::move(made);
  SaveSchedule(schedule, schedule.rule->Next(now_.wall, schedule.zone));
  TrimRuns(schedule);
}

void Scheduler::On(const DeleteScheduleEvent& event) {
  Schedule* schedule = FindScheduleOrReply(event.schedule);
  if (schedule == nullptr) return;
  for (const auto& [number, run] : schedule->runs) {
    schedules_.run_of.erase(run.job);
    schedules_.to_judge.erase({event.schedule, number});
  }
  schedules_.due.erase({schedule->record.next_fire, event.schedule});
  effects_.records.push_back(DeleteSchedule{event.schedule});
  schedules_.by_name.erase(event.schedule);
}

void Scheduler::On(const PauseScheduleEvent& event) {
  Schedule* schedule = FindScheduleOrReply(event.schedule);
  if (schedule == nullptr || schedule->record.paused == event.paused) return;
  ScheduleRecord& record = schedule->record;
  record.paused = event.paused;
  record.paused_by = event.paused ? event.user : "";
  // What passed while it was paused was not missed.
  absl::Time next = record.next_fire;
  if (!event.paused && schedule->rule.has_value())
    next = std::max(next, schedule->rule->Next(now_.wall, schedule->zone));
  SaveSchedule(*schedule, next);
}

void Scheduler::On(const RunScheduleEvent& event) {
  Schedule* schedule = FindScheduleOrReply(event.schedule);
  if (schedule == nullptr) return;
  SubmitAllEvent submit =
      SubmitOf(schedule->record,
               absl::StrCat("schedule/", event.schedule, "/now/", event.request_id), event.job);
  submit.quota = event.quota;  // unlike a fire it is somebody's wish
  if (FindRequest(RequestOwner(submit.access, submit.user), submit.request_id) != nullptr) {
    On(submit);  // a repeat: answers with the earlier jobs
    if (!effects_.reply.jobs.empty()) effects_.reply.job = effects_.reply.jobs.back();
    return;
  }
  // Before earlier runs are cancelled for one that is refused.
  effects_.reply.status = CheckSubmit(submit);
  if (!effects_.reply.status.ok()) return;
  const std::string overlap = ResolveOverlap(*schedule, submit);
  if (!overlap.empty()) {
    effects_.reply.status = FieldStatus(absl::StatusCode::kFailedPrecondition, "schedule", overlap,
                                        "cancel it, or wait for its end");
    return;
  }
  On(submit);
  if (!effects_.reply.status.ok()) return;
  ScheduleRun run;
  run.fire_time = run.first_fire_time = now_.wall;
  run.manual = true;
  run.job = effects_.reply.job = event.job;
  run.before = OthersOf(submit);
  run.reason = event.user.empty() ? "by a user's word" : absl::StrCat("by ", event.user);
  AddRun(*schedule, std::move(run));
  SaveSchedule(*schedule, schedule->record.next_fire);
}

// ---- fires

void Scheduler::FireSchedules() {
  std::vector<std::string> names;
  for (auto it = schedules_.due.begin(); it != schedules_.due.end() && it->first <= now_.wall;
       ++it) {
    names.push_back(it->second);
  }
  for (const std::string& name : names) {
    Schedule& schedule = schedules_.by_name.at(name);
    const ScheduleRecord& record = schedule.record;
    const DueFires due = DecideDue(*schedule.rule, schedule.zone, record.next_fire, now_.wall,
                                   record.missed, record.start_within);
    for (const LeftOut& left_out : due.left_out) {
      ScheduleRun run;
      run.fire_time = left_out.last;
      run.first_fire_time = left_out.first;
      run.fires = left_out.fires;
      run.fires_more = left_out.more;
      run.reason = left_out.reason;
      AddRun(schedule, std::move(run));
    }
    for (absl::Time time : due.fires) Fire(schedule, time);
    SaveSchedule(schedule, due.next);
  }
}

// Either makes the jobs or records why not.
void Scheduler::Fire(Schedule& schedule, absl::Time time) {
  const Reply outer = std::exchange(effects_.reply, Reply());
  const std::string request = absl::StrCat("schedule/", schedule.record.name, "/", ShowTime(time));
  const JobId id = HashedId(absl::StrCat(options_.nonce_seed, "/", request));
  ScheduleRun run;
  run.fire_time = run.first_fire_time = time;
  SubmitAllEvent submit = SubmitOf(schedule.record, request, id);
  if (const RequestRecord* before = FindRequest(RequestOwner(submit.access, submit.user), request);
      before != nullptr) {
    run.reason = absl::StrCat(before->job.value(), " was submitted for this time before");
  } else if (const absl::Status refused = CheckSubmit(submit); !refused.ok()) {
    run.reason = absl::StrCat("refused: ", std::string(refused.message()));
  } else {
    run.reason = ResolveOverlap(schedule, submit);
  }
  if (run.reason.empty()) {
    On(submit);
    if (effects_.reply.status.ok()) {
      run.job = id;
      run.before = OthersOf(submit);
      if (now_.wall - time >= kFireOnTime)
        run.reason = absl::StrCat("missed, made up for after ", HumanDuration(now_.wall - time));
    } else {
      run.reason = absl::StrCat("refused: ", std::string(effects_.reply.status.message()));
    }
  }
  AddRun(schedule, std::move(run));
  effects_.reply = outer;
}

// The jobs of a run, the last with that id. Those in front of it get ids made from it.
SubmitAllEvent Scheduler::SubmitOf(const ScheduleRecord& record, std::string request_id,
                                   const JobId& id) const {
  // What its jobs name was looked at when it was made.
  SubmitAllEvent submit{std::move(request_id), record.body_sha256, record.user, record.before,
                        Access{record.tenant, /*all=*/true}};
  std::map<JobId, JobId> made;  // in place of the schedule's own
  for (size_t i = 0; i < submit.jobs.size(); ++i)
    made[record.before[i].job] = submit.jobs[i].job = HashedId(absl::StrCat(id.value(), "/", i));
  submit.jobs.push_back({id, record.spec, record.payload});
  const auto replace = [&made](JobId& named) {
    if (const auto other = made.find(named); other != made.end()) named = other->second;
  };
  for (Submission& job : submit.jobs) {
    CoreSpec& spec = job.spec;
    std::for_each(spec.after.begin(), spec.after.end(), replace);
    std::for_each(spec.after_any.begin(), spec.after_any.end(), replace);
    replace(spec.source);
    if (spec.deadline != absl::InfiniteFuture())
      spec.deadline = now_.wall + (spec.deadline - record.created);
    spec.ttl_after_finished = std::max(spec.ttl_after_finished, kKeepForVerdict);
  }
  return submit;
}

// Applies the overlap policy: what earlier runs mean for the jobs about to be submitted. Returns
// why they must not be; empty: they may. A run of several jobs has ended when all of them have.
std::string Scheduler::ResolveOverlap(const Schedule& schedule, SubmitAllEvent& submit) {
  std::vector<const Job*> unfinished;
  int runs = 0;
  for (const auto& [number, run] : schedule.runs) {
    const size_t before = unfinished.size();
    for (const JobId& id : JobIdsOf(run)) {
      const Job* job = Find(id);
      if (job != nullptr && !IsTerminal(job->state)) unfinished.push_back(job);
    }
    runs += unfinished.size() > before;
  }
  if (unfinished.empty()) return "";
  const OverlapPolicy policy = schedule.record.overlap;
  const Job& newest = *unfinished.back();
  if (policy == OverlapPolicy::kSkip) {
    return absl::StrCat("overlaps with ", newest.id.value(), ", which is still ",
                        std::string(JobStateName(newest.state)));
  }
  if (runs >= kMaxUnfinishedRuns)
    return absl::StrCat(runs, " earlier runs have not ended, the limit");
  if (policy == OverlapPolicy::kCancelOld) {
    // The last first: who waits for another is cancelled for itself, not ended with it.
    for (auto job = unfinished.rbegin(); job != unfinished.rend(); ++job) {
      const Reply outer = std::exchange(effects_.reply, Reply());
      On(CancelEvent{(*job)->id, absl::StrCat("schedule ", schedule.record.name),
                     "its next run is due"});
      effects_.reply = outer;
    }
  }
  for (Submission& first : submit.jobs) {
    if (WaitsForOneOf(first, submit.jobs)) continue;
    for (const Job* job : unfinished) {
      if (!IsTerminal(job->state)) first.spec.after_any.push_back(job->id);
    }
  }
  return "";
}

void Scheduler::AddRun(Schedule& schedule, ScheduleRun run) {
  run.number = ++schedule.record.runs;
  run.decided = now_.wall;
  if (!run.manual) schedule.record.last_fire = std::max(schedule.record.last_fire, run.fire_time);
  if (!run.job.empty()) schedules_.run_of[run.job] = {schedule.record.name, run.number};
  effects_.records.push_back(PutScheduleRun{schedule.record.name, run});
  schedule.runs[run.number] = std::move(run);
  TrimRuns(schedule);
}

// Keeps the newest, those whose jobs have not been judged, and the reference.
void Scheduler::TrimRuns(Schedule& schedule) {
  const int64_t oldest = schedule.record.runs - schedule.record.history_limit + 1;
  for (auto it = schedule.runs.begin(); it != schedule.runs.end() && it->first < oldest;) {
    const ScheduleRun& run = it->second;
    const bool waits = !run.job.empty() && run.judgement.result == RunResult::kPending;
    if (waits || it->first == schedule.record.reference) {
      ++it;
      continue;
    }
    effects_.records.push_back(DeleteScheduleRun{schedule.record.name, it->first});
    it = schedule.runs.erase(it);
  }
}

// ---- verdicts

void Scheduler::NoteRunEnded(const JobId& id) {
  auto it = schedules_.run_of.find(id);
  if (it != schedules_.run_of.end()) schedules_.to_judge.insert(it->second);
}

void Scheduler::On(const JudgeRunEvent& event) {
  if (schedules_.to_judge.count({event.schedule, event.number}) == 0) return;  // done, or deleted
  Schedule& schedule = schedules_.by_name.at(event.schedule);
  ScheduleRun& run = schedule.runs.at(event.number);
  const Job* job = Find(run.job);
  run.measures = event.measures;
  for (const JobId& id : JobIdsOf(run)) {
    // An elastic gang's speed tells more of how full the cluster was.
    const Job* of = Find(id);
    if (of != nullptr && IsElastic(of->spec)) run.measures.tokens_per_second.reset();
  }
  Judgement& judgement = run.judgement;
  if (job == nullptr || job->state == JobState::kCancelled) {
    judgement.result = RunResult::kUnknown;
    judgement.reason = job == nullptr ? "its job's record was deleted" : job->reason;
  } else if (job->state == JobState::kFailed) {
    judgement.result = RunResult::kFailed;
    judgement.reason = job->reason;
  } else {
    ScheduleRecord& record = schedule.record;
    const auto reference = schedule.runs.find(record.reference);
    const bool known = reference != schedule.runs.end();
    judgement = Judge(run.measures, known ? &reference->second.measures : nullptr, record.reference,
                      record.tolerances);
    if (IsGood(judgement.result)) BecomeReference(schedule, run);
  }
  if (schedule.record.reference != run.number) run.measures.curve.clear();
  judgement.time = now_.wall;
  schedules_.to_judge.erase({event.schedule, event.number});
  schedules_.run_of.erase(run.job);
  effects_.records.push_back(PutScheduleRun{event.schedule, run});
  TrimRuns(schedule);
}

// Its curve has done its duty.
void Scheduler::DropReference(Schedule& schedule) {
  auto old = schedule.runs.find(schedule.record.reference);
  if (old == schedule.runs.end()) return;
  old->second.measures.curve.clear();
  effects_.records.push_back(PutScheduleRun{schedule.record.name, old->second});
}

// A run that was judged late does not take the place of a newer one.
void Scheduler::BecomeReference(Schedule& schedule, const ScheduleRun& run) {
  ScheduleRecord& record = schedule.record;
  if (run.number < record.reference) return;
  DropReference(schedule);
  record.reference = run.number;
  effects_.records.push_back(PutSchedule{record});
}

// ---- recovery and checks

void Scheduler::LoadSchedules(StoredState& stored) {
  for (ScheduleRecord& record : stored.schedules) {
    const std::string name = record.name;
    Schedule& schedule = schedules_.by_name[name];
    schedule.record = std::move(record);
    // Another version of tzdata may have dropped the zone; the others go on.
    const absl::Status rule = LoadRule(schedule);
    if (!rule.ok()) {
      schedule.rule.reset();
      schedule.problem = std::string(rule.message());
    } else if (!schedule.record.paused) {
      schedules_.due.insert({schedule.record.next_fire, name});
    }
  }
  for (auto& [name, run] : stored.schedule_runs) {
    auto schedule = schedules_.by_name.find(name);
    if (schedule == schedules_.by_name.end()) continue;
    if (!run.job.empty() && run.judgement.result == RunResult::kPending) {
      schedules_.run_of[run.job] = {name, run.number};
      const Job* job = Find(run.job);
      if (job == nullptr || IsTerminal(job->state)) schedules_.to_judge.insert({name, run.number});
    }
    schedule->second.runs[run.number] = std::move(run);
  }
}

void Scheduler::CheckScheduleInvariants() const {
  size_t due = 0, pending = 0;
  for (const auto& [name, schedule] : schedules_.by_name) {
    const ScheduleRecord& record = schedule.record;
    LL_CHECK(record.name == name);
    LL_CHECK(schedule.rule.has_value() == schedule.problem.empty());
    const bool fires = !record.paused && schedule.rule.has_value();
    LL_CHECK((schedules_.due.count({record.next_fire, name}) > 0) == fires);
    due += fires;
    LL_CHECK(record.reference == 0 || schedule.runs.count(record.reference) == 1);
    for (const auto& [number, run] : schedule.runs) {
      LL_CHECK(run.number == number && number <= record.runs);
      LL_CHECK(!run.job.empty() || !run.reason.empty());
      LL_CHECK(run.measures.curve.empty() || number == record.reference);
      if (run.job.empty() || run.judgement.result != RunResult::kPending) continue;
      ++pending;
      LL_CHECK(schedules_.run_of.at(run.job) == RunKey(name, number));
      const Job* job = Find(run.job);
      LL_CHECK((schedules_.to_judge.count({name, number}) > 0) ==
               (job == nullptr || IsTerminal(job->state)));
    }
  }
  LL_CHECK(schedules_.due.size() == due);
  LL_CHECK(schedules_.run_of.size() == pending);
}

}  // namespace ll
