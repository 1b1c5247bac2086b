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
    if (wanted && HasLabels(*job, query.labels)) jobs.push_back(job);
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

void Scheduler::CheckInvariants() const {
  std::set<std::pair<WorkerId, int>> held;
  size_t queued = 0, unfinished = 0;
  std::map<const Queue*, int> held_gpus, held_jobs;
  for (const auto& [sequence, job] : by_sequence_) {
    LL_CHECK(job->sequence == sequence && Find(job->id) == job);
    unfinished += !IsTerminal(job->state);
    queued += job->state == JobState::kQueued;
    const Queue* queue = fair_.Find(QueueNameOf(job->spec));
    LL_CHECK(IsTerminal(job->state) || queue != nullptr);
    LL_CHECK((queue != nullptr && queue->waiting.Contains(job)) ==
             (job->state == JobState::kQueued));
    LL_CHECK((claimants_.count(job->id) > 0) == job->claims);
    LL_CHECK(!job->claims || job->state == JobState::kQueued);
    if (HoldsSlots(job->state)) {
      held_gpus[queue] += RanksOf(*job);
      ++held_jobs[queue];
    }
    LL_CHECK((elastic_.count(sequence) > 0) == (HoldsSlots(job->state) && IsElastic(job->spec)));
    LL_CHECK(job->resize_to == 0 ||
             (IsElastic(job->spec) && (job->state == JobState::kPreempting || job->claims)));
    LL_CHECK((active_.count(sequence) > 0) ==
             (HoldsSlots(job->state) || job->state == JobState::kRetrying));
    const bool runs = job->attempt.has_value() && !job->attempt->over();
    LL_CHECK(runs == HoldsSlots(job->state));
    LL_CHECK(!job->attempt.has_value() || job->attempt->epoch == job->epoch);
    LL_CHECK(job->attempt.has_value() == (job->epoch > 0));
    LL_CHECK(job->state != JobState::kBlocked || !job->waiting_for.empty());
    LL_CHECK(job->state != JobState::kQueued || job->waiting_for.empty());
    LL_CHECK(job->spec.source.empty() || job->source_checkpoint.has_value() ||
             !(job->state == JobState::kQueued || active_.count(sequence) > 0));
    LL_CHECK(IsTerminal(job->state) == (job->finished != absl::InfinitePast()));
    LL_CHECK(job->transitions >= static_cast<int64_t>(job->history.size()));
    LL_CHECK(!job->history.empty() && job->history.back().state == job->state);
    if (!IsTerminal(job->state)) {
      for (const JobId& id : job->waiting_for) LL_CHECK(dependents_.at(id).count(job->id) == 1);
    }
    if (!runs) continue;
    LL_CHECK(RanksOf(*job) >= job->spec.gpus && RanksOf(*job) <= MaxGpus(job->spec));
    std::set<std::pair<WorkerId, int>> own;
    for (size_t i = 0; i < job->attempt->ranks.size(); ++i) {
      const Rank& rank = job->attempt->ranks[i];
      LL_CHECK(own.insert({rank.worker, rank.slot}).second);
      if (rank.phase == RankPhase::kExited) continue;
      const SlotUse& use = workers_.at(rank.worker).uses.at(rank.slot);
      LL_CHECK(use.job == job->id && use.epoch == job->epoch && use.rank == static_cast<int>(i) &&
               !use.stray);
      LL_CHECK(held.insert({rank.worker, rank.slot}).second);
    }
  }
  LL_CHECK(fair_.waiting() == queued);
  for (const auto& [name, queue] : fair_.queues())
    LL_CHECK(queue.gpus == held_gpus[&queue] && queue.jobs == held_jobs[&queue]);
  const SlotPool fresh(HostViews());
  LL_CHECK(fresh.size() == pool_.size());
  for (SlotId id = 0; id < static_cast<SlotId>(fresh.size()); ++id) {
    const SlotPool::SlotInfo& slot = fresh.slot(id);
    const SlotId same = pool_.Find(slot.worker, slot.index);
    LL_CHECK(same == id && pool_.free(id) == fresh.free(id) &&
             pool_.usable(id) == fresh.usable(id));
  }
  LL_CHECK(unfinished_ == unfinished);
  CheckScheduleInvariants();
  LL_CHECK(jobs_.size() == by_sequence_.size());
  for (const auto& [name, worker] : workers_) {
    LL_CHECK(worker.name == name);
    LL_CHECK(worker.connected == (worker.session != 0));
    for (const auto& [slot, use] : worker.uses)
      LL_CHECK(use.stray || held.count({name, slot}) == 1);
  }
}

}  // namespace ll
