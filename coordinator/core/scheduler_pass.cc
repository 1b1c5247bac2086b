// One pass over the queues: who starts now, who may clear the way for itself, who waits and why.
//
// Order: jobs for which slots were cleared (claims), then by fair share (fair_share.h). The first
// that fits no more reserves (backfill.h); jobs behind it take what it does not need, or what they
// give back in time. A job that no end of a job can help (it needs a worker back, or is too big)
// reserves nothing, so that it holds up nobody.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

// A gang past its forecast is taken to end after another minute, again and again.
constexpr absl::Duration kOverrun = absl::Minutes(1);
// How late a reservation may come true before nothing is backfilled any more that could be in its
// way.
constexpr absl::Duration kPromiseSlack = absl::Minutes(1);
constexpr int kRebuildsPerTick = 32;
// Queues whose first job may look for victims, in one pass.
constexpr int kPreemptionTries = 8;

// Whether a job with the request `other` cannot fit where `failed` did not.
bool NoEasier(const PlacementRequest& failed, const PlacementRequest& other) {
  return other.ranks >= failed.ranks && other.required_slot_bytes >= failed.required_slot_bytes &&
         other.one_host == failed.one_host && other.slot_kinds == failed.slot_kinds &&
         other.hosts == failed.hosts;
}

}  // namespace

struct Scheduler::Pass {
  // The rest of one queue.
  struct Line {
    Queue* queue = nullptr;
    JobQueue::Set::const_iterator next;
    bool first = true;  // no job before it waits for slots
    bool closed = false;
    double share = 0;                        // kept: it changes only with a start
    int claimed_gpus = 0, claimed_jobs = 0;  // of limits, by claims
  };

  SlotPool open;  // free and not claimed
  SlotPool shut;  // and not reserved
  Job* head = nullptr;
  bool reserved = false;    // for the head
  Reservation reservation;  // start infinite until then
  std::vector<Line> lines;
  Line* line = nullptr;                       // of the job under consideration
  std::vector<PlacementRequest> failed;       // did not fit into `shut`, which only shrinks
  std::vector<PlacementRequest> failed_open;  // nor into `open`
  std::map<JobId, WorkerId> ending;  // jobs whose given-up ranks an agent in contact is ending
  int behind = 0;                    // jobs placed in vain behind the head
  int considered = 0;                // jobs looked at behind the head
  int preemption_tries = 0;

  void Take(const std::vector<SlotId>& slots) {
    for (SlotId slot : slots) {
      open.Take(slot);
      shut.Take(slot);
    }
  }
  bool KnownNotToFit(const PlacementRequest& request) const {
    return request.ranks > open.usable_total() ||
           std::any_of(failed_open.begin(), failed_open.end(),
                       [&request](const PlacementRequest& f) { return NoEasier(f, request); });
  }
  Line* LineOf(const Queue& queue) {
    for (Line& line : lines) {
      if (line.queue == &queue) return &line;
    }
    return nullptr;
  }
  // The line whose turn it is; null: done.
  Line* Next() {
    Line* best = nullptr;
    std::pair<bool, double> best_key;
    for (Line& line : lines) {
      if (line.closed || line.next == line.queue->waiting.end()) continue;
      if (!line.first && shut.usable_total() == 0 && open.usable_total() == 0) continue;
      const LimitAnswer limits =
          CheckLimits(*line.queue, (*line.next)->spec.gpus, line.claimed_gpus, line.claimed_jobs);
      const std::pair<bool, double> key(limits.kind != LimitAnswer::Kind::kOwn, line.share);
      if (best != nullptr && !(key < best_key)) continue;
      best = &line;
      best_key = key;
    }
    return best;
  }
};

// ---- what placement is asked

std::vector<HostView> Scheduler::HostViews() const {
  std::vector<HostView> hosts;
  hosts.reserve(workers_.size());
  for (const auto& [name, worker] : workers_) {
    if (worker.declared_dead) continue;
    HostView host{
        name,       worker.host,     worker.connected && !time_.LeaseExpired(worker.silence),
        {},         worker.cordoned, worker.nvlink_domain,
        worker.rack};
    for (const Slot& slot : worker.slots) {
      host.slots.push_back(
          {slot.index, slot.kind, slot.memory_bytes, worker.uses.count(slot.index) == 0});
    }
    hosts.push_back(std::move(host));
  }
  return hosts;
}

void Scheduler::RefreshPool() {
  if (!std::exchange(pool_stale_, false)) return;
  pool_ = SlotPool(HostViews());
  std::map<std::string, int> capacity;
  for (const SlotPool::Group& group : pool_.groups())
    capacity[pool_.kinds()[group.kind]] += group.end - group.begin;
  fair_.SetCapacity(std::move(capacity));
}

// Without a shared job store every rank must be able to read what any other has written, so a gang
// stays on one host, and a resumed one goes where its checkpoint lies.
PlacementRequest Scheduler::RequestOf(const Job& job) const {
  PlacementRequest request;
  request.ranks = job.spec.gpus;
  request.required_slot_bytes = job.spec.required_slot_bytes;
  request.slot_kinds = job.spec.slot_kinds;
  request.hosts = job.spec.hosts;
  if (options_.shared_job_store) return request;
  request.one_host = true;
  request.host_reason = "without a shared job store a gang stays on one host";
  if (job.newest_checkpoint.has_value()) {
    request.hosts = {job.newest_checkpoint->host};
    request.host_reason =
        absl::StrCat("which holds its checkpoint of step ", job.newest_checkpoint->step);
  } else if (job.source_checkpoint.has_value()) {
    request.hosts = {job.source_checkpoint->host};
    request.host_reason = absl::StrCat("which holds the checkpoint of ", job.spec.source.value());
  }
  return request;
}

absl::Duration Scheduler::Remaining(const Job& job) const {
  absl::Duration remaining = job.spec.forecast_duration;
  if (remaining != absl::InfiniteDuration())
    remaining = std::max(remaining - job.run_time, remaining / 10);  // forecasts err
  return std::min(remaining, job.spec.max_runtime - job.run_time);
}

void Scheduler::UpdateExpectedEnd(Job& job) {
  if (job.expected_end != absl::InfiniteDuration()) ends_.erase({job.expected_end, job.sequence});
  job.expected_end = absl::InfiniteDuration();
  if (job.state == JobState::kStarting || job.state == JobState::kRunning) {
    job.expected_end = time_.now() + Remaining(job);
  } else if (HoldsSlots(job.state)) {
    // Its ranks are ending. An estimate too late would let others into holes that are none.
    job.expected_end = time_.now();
  }
  if (job.expected_end != absl::InfiniteDuration()) ends_.insert({job.expected_end, job.sequence});
}

Reservation Scheduler::ReservationOf(const PlacementRequest& request, const SlotPool& pool) const {
  // In order of time: those past their forecast count as ending in a minute.
  const absl::Duration overdue_end = time_.now() + kOverrun;
  const auto first_due = ends_.lower_bound({time_.now(), 0});
  auto overdue = ends_.begin(), due = first_due;
  std::vector<ExpectedEnd> ends;
  const auto add = [&](absl::Duration end, int64_t sequence) {
    const Job* job = by_sequence_.at(sequence);
    // Its slots are for the one that claims them.
    if (job->state == JobState::kPreempting && claimants_.count(job->preempted_by) > 0) return;
    ends.push_back({end, job, SlotsOf(*job, pool)});
  };
  for (size_t limit = 64;; limit *= 8) {  // most requests need but a few ends
    while (ends.size() < limit && (overdue != first_due || due != ends_.end())) {
      if (due != ends_.end() && (overdue == first_due || due->first <= overdue_end)) {
        add(due->first, due->second);
        ++due;
      } else {
        add(overdue_end, overdue->second);
        ++overdue;
      }
    }
    Reservation reservation = Reserve(request, pool, ends);
    const bool all = overdue == first_due && due == ends_.end();
    if (all || reservation.start != absl::InfiniteDuration()) return reservation;
  }
}

// ---- the pass

void Scheduler::SchedulePass() {
  // With thousands of agents dialling in at once each would bring a rebuild: the tick's serves all.
  if (pool_stale_ && ++rebuilds_ > kRebuildsPerTick) return;
  schedule_ = false;
  RefreshPool();
  Pass pass{pool_, pool_};
  for (auto& [name, queue] : fair_.queues()) {
    if (queue.waiting.size() == 0) continue;
    pass.lines.push_back({&queue, queue.waiting.begin()});
    pass.lines.back().share = fair_.Share(queue);
  }
  if (pass.lines.empty()) return;
  if (maybe_strays_) FindStrays(pass);
  ServeClaims(pass);
  while ((pass.line = pass.Next()) != nullptr && pass.behind < options_.backfill_depth &&
         pass.considered < 10 * options_.backfill_depth) {
    pass.considered += pass.head != nullptr;
    Job& job = **pass.line->next++;  // a start takes it out of the queue
    Consider(job, pass);
  }
}

void Scheduler::FindStrays(Pass& pass) {
  maybe_strays_ = false;
  for (const auto& [name, worker] : workers_) {
    for (const auto& [slot, use] : worker.uses) {
      if (!use.stray) continue;
      maybe_strays_ = true;
      if (worker.connected) pass.ending.insert({use.job, name});
    }
  }
}

// Slots cleared by preemption are for the job that asked, whatever the shares have become since:
// else another could take them and the victims would have stopped for nothing.
void Scheduler::ServeClaims(Pass& pass) {
  if (claimants_.empty()) return;
  std::set<int64_t> sequences;
  for (const JobId& id : claimants_) sequences.insert(Find(id)->sequence);
  for (int64_t sequence : sequences) {
    Job& job = *by_sequence_.at(sequence);
    Pass::Line& line = *pass.LineOf(fair_.Of(job.spec));
    const PlacementRequest request = RequestOf(job);
    SlotPool cleared = pass.open;
    bool waits = false;
    int gpus = line.claimed_gpus, jobs = line.claimed_jobs;
    for (const auto& [other, victim] : active_) {
      if (victim->state != JobState::kPreempting || victim->preempted_by != job.id) continue;
      for (SlotId slot : SlotsOf(*victim, pass.open)) cleared.Give(slot);
      waits = true;
      if (&fair_.Of(victim->spec) != line.queue) continue;
      gpus -= victim->spec.gpus;
      --jobs;
    }
    const auto limits = CheckLimits(*line.queue, job.spec.gpus, gpus, jobs).kind;
    const bool allowed = limits == LimitAnswer::Kind::kOwn || limits == LimitAnswer::Kind::kBorrows;
    const Placement placement = Place(request, cleared);
    if (!allowed || placement.answer != Placement::Answer::kFit) {
      job.claims = false;  // something else has gone wrong since: back into the line
      claimants_.erase(job.id);
      Touch(job);
      continue;
    }
    pass.Take(placement.ranks);
    if (waits) {
      line.claimed_gpus += job.spec.gpus;
      ++line.claimed_jobs;
    } else {
      if (line.next != line.queue->waiting.end() && *line.next == &job) ++line.next;
      StartAttempt(job, placement.ranks, "on slots that were cleared for it");
      line.share = fair_.Share(*line.queue);
    }
  }
}

void Scheduler::Consider(Job& job, Pass& pass) {
  if (job.claims) return;  // served already
  if (auto it = pass.ending.find(job.id); it != pass.ending.end()) {
    SetWaitReason(job,
                  absl::StrCat("waits for the end of its earlier ranks on ", it->second.value()));
    return;
  }
  Pass::Line& line = *pass.line;
  const LimitAnswer limits =
      CheckLimits(*line.queue, job.spec.gpus, line.claimed_gpus, line.claimed_jobs);
  if (limits.kind == LimitAnswer::Kind::kNever) return SetWaitReason(job, limits.reason);
  const PlacementRequest request = RequestOf(job);
  if (limits.kind == LimitAnswer::Kind::kWait) {
    // Nobody of the queue passes by: a smaller job would keep a larger one waiting for ever.
    line.closed = true;
    if (!line.first || !TryPreempt(job, request, pass)) SetWaitReason(job, limits.reason);
    return;
  }
  if (pass.head != nullptr && !line.first && pass.KnownNotToFit(request)) return;
  if (pass.head != nullptr && job.spec.gpus <= pass.open.usable_total()) MakeReservation(pass);
  const bool known_not_to_fit =
      !line.first &&
      std::any_of(pass.failed.begin(), pass.failed.end(),
                  [&request](const PlacementRequest& failed) { return NoEasier(failed, request); });
  const bool fills_hole = pass.head != nullptr &&
                          pass.reservation.start != absl::InfiniteDuration() &&
                          time_.now() + Remaining(job) <= pass.reservation.start;
  if (known_not_to_fit && !fills_hole) return;
  if (TryStart(job, request, pass)) return;
  if (pass.head != nullptr) ++pass.behind;
  const Placement placement = Place(request, pass.open);
  if (placement.answer != Placement::Answer::kFit && placement.needs_workers) {
    return SetWaitReason(job, ExplainPlacement(request, pool_));
  }
  pass.failed.push_back(request);
  if (placement.answer != Placement::Answer::kFit) pass.failed_open.push_back(request);
  if (std::exchange(line.first, false) && TryPreempt(job, request, pass)) return;
  if (pass.head == nullptr) {
    BecomeHead(job, request, pass);
  } else {
    SetWaitReason(job, absl::StrCat("waits behind ", pass.head->id.value()));
  }
}

bool Scheduler::TryStart(Job& job, const PlacementRequest& request, Pass& pass) {
  Placement placement = Place(request, pass.shut);
  std::string note;
  if (pass.head != nullptr)
    note = absl::StrCat("on slots that ", pass.head->id.value(), " does not need");
  if (placement.answer != Placement::Answer::kFit) {
    if (pass.head == nullptr || pass.reservation.start == absl::InfiniteDuration() ||
        time_.now() + Remaining(job) > pass.reservation.start)
      return false;
    placement = Place(request, pass.open);
    if (placement.answer != Placement::Answer::kFit) return false;
    note = absl::StrCat("to end before ", pass.head->id.value(), " can start");
  }
  pass.Take(placement.ranks);
  StartAttempt(job, placement.ranks, note);
  pass.line->share = fair_.Share(*pass.line->queue);
  return true;
}

// The first job that waits for slots: later ones must not delay it.
void Scheduler::BecomeHead(Job& job, const PlacementRequest& request, Pass& pass) {
  pass.head = &job;
  SetWaitReason(job, ExplainPlacement(request, pool_));
}

// Only once another job might take slots: in most passes none could.
void Scheduler::MakeReservation(Pass& pass) {
  if (std::exchange(pass.reserved, true)) return;
  Job& job = *pass.head;
  const PlacementRequest request = RequestOf(job);
  pass.reservation = ReservationOf(request, pass.open);
  if (pass.reservation.start != absl::InfiniteDuration()) {
    if (job.promised_start == absl::InfiniteDuration()) job.promised_start = pass.reservation.start;
    // Gangs did not end as forecast. Nothing more goes into holes that would delay it further.
    if (pass.reservation.start > job.promised_start + kPromiseSlack) {
      pass.reservation = ReserveAll(request, pass.open);
    } else {
      job.promised_start = std::min(job.promised_start, pass.reservation.start);
      pass.reservation.start = job.promised_start;
    }
  }
  for (SlotId slot : pass.reservation.slots) pass.shut.Take(slot);
}

// ---- preemption

// The running gangs that must give way to the job, in the order in which they do.
std::vector<VictimCandidate> Scheduler::VictimsFor(const Job& job, bool reclaim) const {
  std::map<const Queue*, std::vector<const Job*>> holding;
  std::set<const Job*> borrowers;
  const Queue* own = fair_.Find(QueueNameOf(job.spec));
  if (reclaim) {
    for (const auto& [sequence, other] : active_) {
      if (HoldsSlots(other->state)) holding[fair_.Find(QueueNameOf(other->spec))].push_back(other);
    }
    for (auto& [queue, jobs] : holding) {
      if (queue == own) continue;
      for (const Job* borrower : Borrowers(*queue, std::move(jobs))) borrowers.insert(borrower);
    }
  }
  std::vector<VictimCandidate> candidates;
  for (const auto& [sequence, other] : active_) {
    if (other->state != JobState::kRunning || other->headless || other->id == job.preempted_by ||
        other->attempt->stop != StopKind::kNone)
      continue;
    const absl::Duration least = other->spec.min_runtime.value_or(options_.min_runtime);
    if (time_.now() - other->trains_since < least) continue;
    const bool same_queue = fair_.Find(QueueNameOf(other->spec)) == own;
    const bool yields =
        same_queue ? other->spec.priority < job.spec.priority : borrowers.count(other) > 0;
    if (yields) candidates.push_back({other, same_queue, other->spec.gpus});
  }
  SortVictims(candidates);
  return candidates;
}

bool Scheduler::TryPreempt(Job& job, const PlacementRequest& request, Pass& pass) {
  // A job that fails at every start would stop the others again and again.
  if (job.stuck_attempts > 0 || pass.preemption_tries >= kPreemptionTries) return false;
  // Looking is dear, and the answer changes with minimum runtimes, so with ticks, more than with
  // events.
  if (job.preemption_tried == time_.now()) return false;
  job.preemption_tried = time_.now();
  ++pass.preemption_tries;
  Pass::Line& line = *pass.line;
  using Kind = LimitAnswer::Kind;
  for (const bool reclaim : {true, false}) {
    if (reclaim && !line.queue->record.quota_gpus.has_value()) continue;
    const std::vector<VictimCandidate> candidates = VictimsFor(job, reclaim);
    const Preemption preemption =
        ChooseVictims(request, pass.shut, candidates, [&](int gpus, int jobs) {
          const Kind kind = CheckLimits(*line.queue, job.spec.gpus, line.claimed_gpus - gpus,
                                        line.claimed_jobs - jobs)
                                .kind;
          return kind == Kind::kOwn || (!reclaim && kind == Kind::kBorrows);
        });
    if (preemption.victims.empty()) continue;
    std::vector<std::string> names;
    for (Job* victim : preemption.victims) {
      names.push_back(victim->id.value());
      const bool same = fair_.Find(QueueNameOf(victim->spec)) == line.queue;
      Preempt(*victim, job.id,
              absl::StrCat("preempted by ", job.id.value(),
                           same ? absl::StrCat(", which has priority ", job.spec.priority)
                                : absl::StrCat(": queue ", line.queue->record.name,
                                               " takes back its quota")));
    }
    pass.Take(preemption.slots);
    line.claimed_gpus += job.spec.gpus;
    ++line.claimed_jobs;
    job.claims = true;
    claimants_.insert(job.id);
    Touch(job);
    SetWaitReason(
        job, absl::StrCat("waits for ", absl::StrJoin(names, ", "), " to checkpoint and give way"));
    return true;
  }
  return false;
}

void Scheduler::Preempt(Job& victim, const JobId& by, const std::string& reason) {
  ++victim.preemptions;
  victim.preempted_by = by;
  SetState(victim, JobState::kPreempting, reason);
  BeginStop(victim, StopKind::kCheckpoint, reason);
}

void Scheduler::SetWaitReason(Job& job, std::string reason) {
  if (job.wait_reason == reason) return;
  job.wait_reason = std::move(reason);
  Changed(job.id);
}

}  // namespace ll
