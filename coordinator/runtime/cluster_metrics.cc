#include "coordinator/runtime/cluster_metrics.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace ll {
namespace {

const prometheus::Histogram::BucketBoundaries kCommitBuckets = {1e-4, 3e-4, 1e-3, 3e-3, 1e-2,
                                                                3e-2, 0.1,  0.3,  1,    10};
constexpr char kOthers[] = "(others)";

// What one line of the queues' series says; several queues may be added up in it.
struct QueueSums {
  std::map<JobState, int> jobs;
  int pending_gpus = 0, held_gpus = 0;
  int quota_gpus = 0, max_gpus = 0;
  bool has_quota = false, has_max = false;
  double share = 0, weight = 0;  // of several: the highest share, the sum of the weights
  absl::Duration oldest_wait = absl::ZeroDuration();
  std::string oldest_job;  // empty: none waits
  int oldest_gpus = 0;     // that it asks for
};

absl::Time QueuedSince(const Job& job) {
  return job.history.empty() ? job.submitted : job.history.back().time;
}

void AddJob(const Job& job, absl::Time now, QueueSums& sums) {
  ++sums.jobs[job.state];
  if (job.state != JobState::kQueued) return;
  sums.pending_gpus += job.spec.gpus;
  const absl::Duration waited = now - QueuedSince(job);
  if (!sums.oldest_job.empty() && waited <= sums.oldest_wait) return;
  sums.oldest_wait = std::max(waited, absl::ZeroDuration());
  sums.oldest_job = job.id.value();
  sums.oldest_gpus = job.spec.gpus;
}

void AddQueue(const Queue& queue, const FairShare& fair, QueueSums& sums) {
  sums.held_gpus += queue.gpus;
  sums.has_quota |= queue.record.quota_gpus.has_value();
  sums.has_max |= queue.record.max_gpus.has_value();
  sums.quota_gpus += queue.record.quota_gpus.value_or(0);
  sums.max_gpus += queue.record.max_gpus.value_or(0);
  sums.share = std::max(sums.share, fair.Share(queue));
  sums.weight += queue.record.weight;
}

// By the name that is shown.
std::map<std::string, QueueSums> SumUp(const Scheduler& scheduler, absl::Time now) {
  std::map<std::string, QueueSums> shown;
  std::map<std::string, QueueSums*> by_queue;
  for (const auto& [name, queue] : scheduler.fair_share().queues()) {
    QueueSums& sums = shown[by_queue.size() < ClusterMetrics::kMaxQueues ? name : kOthers];
    by_queue[name] = &sums;
    AddQueue(queue, scheduler.fair_share(), sums);
  }
  for (const Job* job : scheduler.List({.limit = SIZE_MAX})) {
    if (IsTerminal(job->state)) continue;
    const auto it = by_queue.find(QueueNameOf(job->spec));
    AddJob(*job, now, it != by_queue.end() ? *it->second : shown[kOthers]);
  }
  return shown;
}

// As the trainer's events call it.
absl::string_view LabelOf(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kNone:
      return "none";
    case FailureClass::kUser:
      return "user";
    case FailureClass::kInfrastructure:
      return "infrastructure";
    case FailureClass::kCapacity:
      return "capacity";
    case FailureClass::kOutOfMemory:
      return "oom";
    case FailureClass::kNotANumber:
      return "nan";
  }
  return "none";
}

const char* SlotState(const Worker& worker, int slot, absl::Duration lease) {
  if (!worker.connected || worker.silence > lease) return "lost";
  if (worker.uses.count(slot) > 0) return "busy";
  return worker.cordoned ? "cordoned" : "free";
}

}  // namespace

ClusterMetrics::ClusterMetrics(prometheus::Registry& registry, Clock& clock,
                               const std::string& version)
    : clock_(clock),
      serving_(
          GaugeOf(registry, "ll_coordinator_serving", "1 while the store can be used.").Add({})),
      restarts_(CounterOf(registry, "ll_job_restarts_total",
                          "Attempts that jobs gave up and that another followed or is to follow, "
                          "by reason (failure, preemption, resize).")),
      ended_(CounterOf(registry, "ll_jobs_ended_total",
                       "Jobs that have ended, by state and class of the failure.")),
      attempts_(
          CounterOf(registry, "ll_job_attempts_total", "Attempts started, first ones included.")
              .Add({})),
      commits_failed_(CounterOf(registry, "ll_store_commits_failed_total",
                                "Transactions that the store did not make durable.")
                          .Add({})),
      commit_seconds_(HistogramOf(registry, "ll_store_commit_seconds",
                                  "Duration of the store's transactions, synced to the disk.")
                          .Add({}, kCommitBuckets)),
      queue_jobs_(GaugeOf(registry, "ll_queue_jobs", "Unfinished jobs by queue and state.")),
      pending_gpus_(GaugeOf(registry, "ll_queue_pending_gpus",
                            "GPUs (on CPU workers: slots) that QUEUED jobs wait for.")),
      held_gpus_(GaugeOf(registry, "ll_queue_held_gpus",
                         "GPUs (on CPU workers: slots) that the queue's gangs hold.")),
      quota_gpus_(GaugeOf(registry, "ll_queue_quota_gpus",
                          "The queue's own GPUs, beyond which it borrows; absent: no quota.")),
      max_gpus_(GaugeOf(registry, "ll_queue_max_gpus",
                        "GPUs that the queue never exceeds; absent: no limit.")),
      share_(GaugeOf(registry, "ll_queue_fair_share_ratio",
                     "Dominant share of the cluster that the queue holds and has lately used, "
                     "over its weight; the smallest is next.")),
      weight_(GaugeOf(registry, "ll_queue_weight", "Weight of the queue.")),
      oldest_wait_(GaugeOf(registry, "ll_queue_oldest_wait_seconds",
                           "How long the queue's oldest QUEUED job has waited; 0: none waits.")),
      oldest_job_(GaugeOf(registry, "ll_queue_oldest_job_info",
                          "1, with the job that has waited longest in the queue and the GPUs it "
                          "asks for; absent: none waits.")),
      slots_(GaugeOf(registry, "ll_slots",
                     "Slots of the registered workers by kind of device and state (busy, free, "
                     "cordoned, lost: out of contact).")) {
  GaugeOf(registry, "ll_coordinator_build_info", "1, with the version of the coordinator.")
      .Add({{"version", version}})
      .Set(1);
  for (const char* reason : {"failure", "preemption", "resize"})
    restarts_.Add({{"reason", reason}});
}

ClusterMetrics::Seen ClusterMetrics::SeenOf(const Job& job) {
  return {job.epoch, job.retries, job.preemptions, job.resizes, IsTerminal(job.state)};
}

void ClusterMetrics::Count(const Job& job, const Seen& before, const Seen& now) {
  const auto restarts = [this](const char* reason, int more) {
    if (more > 0) restarts_.Add({{"reason", reason}}).Increment(more);
  };
  if (now.epoch > before.epoch) attempts_.Increment();  // a restored job skips epochs
  restarts("failure", now.retries - before.retries);
  restarts("preemption", now.preemptions - before.preemptions);
  restarts("resize", now.resizes - before.resizes);
  if (now.over && !before.over) {
    ended_
        .Add({{"state", std::string(JobStateName(job.state))},
              {"failure_class", std::string(LabelOf(job.failure_class))}})
        .Increment();
  }
}

// What came before this process, or before the store failed, has been counted or never is.
void ClusterMetrics::OnRecovered(const Scheduler& scheduler) {
  absl::MutexLock lock(&mu_);
  seen_.clear();
  for (const Job* job : scheduler.List({.limit = SIZE_MAX})) seen_[job->id] = SeenOf(*job);
}

void ClusterMetrics::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  absl::MutexLock lock(&mu_);
  for (const JobId& id : jobs) {
    const Job* job = scheduler.Find(id);
    if (job == nullptr) continue;
    Seen& seen = seen_[id];
    const Seen now = SeenOf(*job);
    Count(*job, seen, now);
    seen = now;
  }
}

void ClusterMetrics::OnDeleted(const JobId& job) {
  absl::MutexLock lock(&mu_);
  seen_.erase(job);
}

void ClusterMetrics::OnTick(const Scheduler& scheduler) {
  absl::MutexLock lock(&mu_);
  if (clock_.Steady() < next_refresh_) return;
  next_refresh_ = clock_.Steady() + kRefresh;
  ShowQueues(scheduler);
  ShowSlots(scheduler);
}

void ClusterMetrics::ShowQueues(const Scheduler& scheduler) {
  for (const auto& [name, sums] : SumUp(scheduler, clock_.Now())) {
    const prometheus::Labels labels = {{"queue", name}};
    for (const auto& [state, count] : sums.jobs)
      queue_jobs_.Set({{"queue", name}, {"state", std::string(JobStateName(state))}}, count);
    pending_gpus_.Set(labels, sums.pending_gpus);
    held_gpus_.Set(labels, sums.held_gpus);
    if (sums.has_quota) quota_gpus_.Set(labels, sums.quota_gpus);
    if (sums.has_max) max_gpus_.Set(labels, sums.max_gpus);
    share_.Set(labels, sums.share);
    weight_.Set(labels, sums.weight);
    oldest_wait_.Set(labels, absl::ToDoubleSeconds(sums.oldest_wait));
    if (!sums.oldest_job.empty())
      oldest_job_.Set(
          {{"gpus", absl::StrCat(sums.oldest_gpus)}, {"job_id", sums.oldest_job}, {"queue", name}},
          1);
  }
  for (GaugeSet* set : {&queue_jobs_, &pending_gpus_, &held_gpus_, &quota_gpus_, &max_gpus_,
                        &share_, &weight_, &oldest_wait_, &oldest_job_})
    set->Sweep();
}

void ClusterMetrics::ShowSlots(const Scheduler& scheduler) {
  std::map<std::pair<std::string, std::string>, int> counts;
  for (const auto& [name, worker] : scheduler.workers()) {
    for (const Slot& slot : worker.slots) {
      for (const char* state : {"busy", "free", "cordoned", "lost"}) counts[{slot.kind, state}];
      ++counts[{slot.kind, SlotState(worker, slot.index, scheduler.options().lease)}];
    }
  }
  for (const auto& [key, count] : counts)
    slots_.Set({{"kind", key.first}, {"state", key.second}}, count);
  slots_.Sweep();
}

void ClusterMetrics::OnCommit(absl::Duration took, bool durable) {
  commit_seconds_.Observe(absl::ToDoubleSeconds(took));
  if (!durable) commits_failed_.Increment();
}

void ClusterMetrics::OnServing(const absl::Status& status) { serving_.Set(status.ok() ? 1 : 0); }

}  // namespace ll
