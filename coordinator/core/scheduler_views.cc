// What the API reads, and the check of the invariants.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/format.h"
#include "coordinator/core/scheduler.h"

namespace ll {

namespace {

bool HasLabels(const Job& job, const std::map<std::string, std::string>& wanted) {
  return std::all_of(wanted.begin(), wanted.end(), [&job](const auto& label) {
    const auto it = job.spec.labels.find(label.first);
    return it != job.spec.labels.end() && (label.second.empty() || it->second == label.second);
  });
}

}  // namespace

std::vector<const Job*> Scheduler::List(const ListQuery& query) const {
  std::vector<const Job*> jobs;
  auto it = by_sequence_.lower_bound(query.before_sequence);
  while (it != by_sequence_.begin() && jobs.size() < query.limit) {
    const Job* job = (--it)->second;
    const bool wanted = query.states.empty() || std::find(query.states.begin(), query.states.end(),
                                                          job->state) != query.states.end();
    if (wanted && query.access.Sees(job->tenant) && HasLabels(*job, query.labels))
      jobs.push_back(job);
  }
  return jobs;
}

std::vector<std::pair<JobState, int>> Scheduler::CountByState() const {
  std::map<JobState, int> counts;
  for (const auto& [sequence, job] : by_sequence_) ++counts[job->state];
  return {counts.begin(), counts.end()};
}

namespace {

// "job-1 (its name), job-2".
std::string Named(const std::vector<JobId>& ids, const Scheduler& jobs) {
  return absl::StrJoin(ids, ", ", [&jobs](std::string* out, const JobId& id) {
    const Job* job = jobs.Find(id);
    absl::StrAppend(out, id.value());
    if (job != nullptr && !job->spec.name.empty()) absl::StrAppend(out, " (", job->spec.name, ")");
  });
}

// The agents whose word is missing, in the attempt of a job that holds slots.
std::string MissingWorkers(const Job& job, const std::map<WorkerId, Worker>& workers,
                           const SchedulerTime& time, RankPhase below) {
  std::set<std::string> names;
  for (const Rank& rank : job.attempt->ranks) {
    if (rank.phase >= below) continue;
    const Worker& worker = workers.at(rank.worker);
    names.insert(time.LeaseExpired(worker.silence) || !worker.connected
                     ? absl::StrCat(rank.worker.value(), " (out of contact)")
                     : rank.worker.value());
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

absl::StatusOr<std::string> Scheduler::Why(const JobId& id) const {
  const Job* job = Find(id);
  if (job == nullptr) return absl::NotFoundError(absl::StrCat("there is no job ", id.value()));
  const std::string state(JobStateName(job->state));
  const std::string silent =
      job->headless ? "; a worker of the gang is out of contact, its ranks train on" : "";
  switch (job->state) {
    case JobState::kBlocked:
      return absl::StrCat(state, ": waits for ", Named(job->waiting_for, *this),
                          job->spec.after_any.empty() ? " to succeed" : " to end");
    case JobState::kQueued:
      return absl::StrCat(state, ": ", WhyQueued(*job));
    case JobState::kStarting:
      return absl::StrCat(state, ": ", job->reason, "; not training yet: ",
                          MissingWorkers(*job, workers_, time_, RankPhase::kTraining));
    case JobState::kRunning:
      return absl::StrCat(
          state, ": ", job->reason, silent,
          IsElastic(job->spec) ? absl::StrCat("; ", DescribeSize(*job), " ranks") : "");
    case JobState::kFinishing:
    case JobState::kPausing:
    case JobState::kPreempting:
    case JobState::kCancelling:
      return absl::StrCat(state, ": ", job->reason, "; waits for the end of the ranks on ",
                          MissingWorkers(*job, workers_, time_, RankPhase::kExited));
    case JobState::kRetrying: {
      const absl::Duration wait = std::max(job->deadline - time_.now(), absl::ZeroDuration());
      return absl::StrCat(state, ": ", job->reason, "; starts again in ", HumanDuration(wait));
    }
    default:
      return absl::StrCat(state, ": ", job->reason);
  }
}

// ---- invariants

// Cheap enough for every step of the simulator: what an index must not hold is shown by its size
// and the members that it must hold.
void Scheduler::CheckInvariants() const {
  size_t unfinished = 0, claims = 0, elastic = 0, active = 0, queued = 0, ranks = 0;
  size_t preempting = 0, headless = 0;
  std::map<const Queue*, int> held_gpus, held_jobs;
  std::map<std::string, size_t> unfinished_of;
  for (const auto& [sequence, job] : by_sequence_) {
    LL_CHECK(job->sequence == sequence);
    CheckJob(*job);
    if (IsTerminal(job->state)) continue;
    ++unfinished;
    ++unfinished_of[job->tenant];
    queued += job->state == JobState::kQueued;
    claims += job->claims;
    active += HoldsSlots(job->state) || job->state == JobState::kRetrying;
    if (!HoldsSlots(job->state)) continue;
    elastic += IsElastic(job->spec);
    preempting += job->state == JobState::kPreempting;
    headless += job->headless;
    const Queue* queue = fair_.Find(QueueNameOf(job->spec));
    held_gpus[queue] += RanksOf(*job);
    ++held_jobs[queue];
    ranks += CheckGang(*job);
  }
  LL_CHECK(jobs_.size() == by_sequence_.size());
  LL_CHECK(unfinished_ == unfinished && fair_.waiting() == queued);
  LL_CHECK(unfinished_of_ == unfinished_of);
  LL_CHECK(preempting_.size() == preempting && headless_.size() == headless);
  LL_CHECK(claimants_.size() == claims && elastic_.size() == elastic && active_.size() == active);
  for (const auto& [name, queue] : fair_.queues())
    LL_CHECK(queue.gpus == held_gpus[&queue] && queue.jobs == held_jobs[&queue]);
  CheckWorkers(ranks);
  CheckScheduleInvariants();
}

void Scheduler::CheckJob(const Job& job) const {
  const bool terminal = IsTerminal(job.state);
  LL_CHECK(terminal == (job.finished != absl::InfinitePast()));
  LL_CHECK(job.transitions >= static_cast<int64_t>(job.history.size()));
  LL_CHECK(!job.history.empty() && job.history.back().state == job.state);
  LL_CHECK(job.attempt.has_value() == (job.epoch > 0));
  LL_CHECK(!job.attempt.has_value() || job.attempt->epoch == job.epoch);
  const bool runs = job.attempt.has_value() && !job.attempt->over();
  LL_CHECK(runs == HoldsSlots(job.state));
  LL_CHECK(!job.claims || job.state == JobState::kQueued);
  LL_CHECK(job.resize_to == 0 ||
           (IsElastic(job.spec) && (job.state == JobState::kPreempting || job.claims)));
  LL_CHECK(!terminal || job.waiting_for.empty());
  if (terminal) return;
  LL_CHECK(Find(job.id) == &job);
  const Queue* queue = fair_.Find(QueueNameOf(job.spec));
  LL_CHECK(queue != nullptr);
  LL_CHECK(job.state != JobState::kQueued || queue->waiting.Contains(&job));
  LL_CHECK(!job.claims || claimants_.count(job.id) > 0);
  const bool active = HoldsSlots(job.state) || job.state == JobState::kRetrying;
  LL_CHECK(!active || active_.count(job.sequence) > 0);
  LL_CHECK(job.state != JobState::kPreempting || preempting_.count(job.sequence) > 0);
  LL_CHECK(!job.headless || headless_.count(job.sequence) > 0);
  LL_CHECK(!HoldsSlots(job.state) || !IsElastic(job.spec) || elastic_.count(job.sequence) > 0);
  LL_CHECK(job.state != JobState::kBlocked || !job.waiting_for.empty());
  LL_CHECK(job.state != JobState::kQueued || job.waiting_for.empty());
  LL_CHECK(job.spec.source.empty() || job.source_checkpoint.has_value() ||
           !(job.state == JobState::kQueued || active));
  for (const JobId& id : job.waiting_for) LL_CHECK(dependents_.at(id).count(job.id) == 1);
}

// Of a job that holds slots; how many of its ranks have not exited. That each has a use which names
// it shows that no two, of whatever jobs, share one.
size_t Scheduler::CheckGang(const Job& job) const {
  LL_CHECK(RanksOf(job) >= job.spec.gpus && RanksOf(job) <= MaxGpus(job.spec));
  LL_CHECK(RanksOf(job) % job.spec.row_ranks == 0);
  size_t running = 0;
  for (size_t i = 0; i < job.attempt->ranks.size(); ++i) {
    const Rank& rank = job.attempt->ranks[i];
    if (rank.phase == RankPhase::kExited) continue;
    ++running;
    const Worker& worker = workers_.at(rank.worker);
    const SlotUse& use = worker.uses.at(rank.slot);
    LL_CHECK(job.headless || !time_.LeaseExpired(worker.silence));
    LL_CHECK(use.job == job.id && use.epoch == job.epoch && use.rank == static_cast<int>(i) &&
             !use.stray);
  }
  return running;
}

void Scheduler::CheckWorkers(size_t running_ranks) const {
  size_t held = 0, slots = 0;
  for (const auto& [name, worker] : workers_) {
    LL_CHECK(worker.name == name);
    LL_CHECK(worker.connected == (worker.session != 0));
    for (const auto& [slot, use] : worker.uses) held += !use.stray;
    if (!worker.declared_dead) slots += worker.slots.size();
  }
  LL_CHECK(held == running_ranks);
  if (pool_stale_) return;  // until the next tick
  LL_CHECK(pool_.size() == slots);
  const Worker* worker = nullptr;
  bool available = false;
  for (SlotId id = 0; id < static_cast<SlotId>(slots); ++id) {
    const SlotPool::SlotInfo& slot = pool_.slot(id);
    const bool same = id > 0 && pool_.slot(id - 1).worker == slot.worker;
    if (!same) {
      worker = &workers_.at(slot.worker);
      available = worker->connected && !time_.LeaseExpired(worker->silence) && !worker->cordoned;
    }
    LL_CHECK(!worker->declared_dead && slot.available == available);
    LL_CHECK(std::any_of(worker->slots.begin(), worker->slots.end(), [&slot](const Slot& known) {
      return known.index == slot.index && known.memory_bytes == slot.memory_bytes;
    }));
    LL_CHECK(pool_.free(id) == (worker->uses.count(slot.index) == 0));
    LL_CHECK(!same || pool_.slot(id - 1).index < slot.index ||
             pool_.slot(id - 1).group < slot.group);
  }
}

}  // namespace ll
