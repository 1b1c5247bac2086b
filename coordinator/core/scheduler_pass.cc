// One pass over the queues: who starts now, who may clear the way for itself, who waits and why.
//
// Order: jobs for which slots were cleared (claims), then by fair share (fair_share.h). The first
// that fits no more reserves (backfill.h), of each type of GPU; jobs behind it take what it does
// not need, or what they give back in time. A job that no end of a job can help (it needs a worker
// back, or is too big) reserves nothing, so that it holds up nobody. What is left then is for
// elastic gangs (scheduler_elastic.cc).
#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "coordinator/core/scheduler_pass.h"

namespace ll {
namespace {

// How often the pool is built anew between two ticks: it takes as long as there are workers.
constexpr int kRebuildsPerTick = 8;
// Queues whose first job may look for victims, in one pass.
constexpr int kPreemptionTries = 8;
// Jobs that only the return of a worker helps: how many a pass between those of the clock looks at,
// and how many kinds of them it remembers.
constexpr int kStuckJobs = 200;
constexpr size_t kStuckKinds = 64;

}  // namespace

// ---- what placement is asked

HostView Scheduler::ViewOf(const Worker& worker) const {
  HostView host{
      worker.name, worker.host,     worker.connected && !time_.LeaseExpired(worker.silence),
      {},          worker.cordoned, worker.nvlink_domain,
      worker.rack};
  host.slots.reserve(worker.slots.size());
  for (const Slot& slot : worker.slots) {
    host.slots.push_back(
        {slot.index, slot.kind, slot.memory_bytes, worker.uses.count(slot.index) == 0});
  }
  return host;
}

// Builds the pool anew where it must be. With thousands of agents dialling in at once each would
// bring one: the next tick's serves all.
void Scheduler::RefreshPool() {
  if (!pool_stale_ || rebuilds_ >= kRebuildsPerTick) return;
  pool_stale_ = false;
  ++rebuilds_;
  std::vector<HostView> hosts;
  hosts.reserve(workers_.size());
  for (const auto& [name, worker] : workers_) {
    if (!worker.declared_dead) hosts.push_back(ViewOf(worker));
  }
  pool_ = SlotPool(hosts);
  std::map<std::string, int> capacity;
  for (size_t i = 0; i < pool_.kinds().size(); ++i)
    capacity[pool_.kinds()[i]] = pool_.kind(static_cast<int>(i)).slots;
  fair_.SetCapacity(std::move(capacity));
}

// Which slots of the worker are free has changed, or whether it may be given a gang, or all of it.
void Scheduler::RefreshSlots(const Worker& worker) {
  pool_stale_ = pool_stale_ || !pool_.Update(ViewOf(worker));
  workers_news_ = true;
}

// Without a shared job store every rank must be able to read what any other has written, so a gang
// stays on one host, and a resumed one goes where its checkpoint lies. One whose checkpoints are
// copied goes elsewhere where that host takes nothing: the copy may be an older one, but the wait
// has no end in sight.
PlacementRequest Scheduler::RequestOf(const Job& job) const {
  PlacementRequest request;
  request.ranks = job.spec.gpus;
  request.required_slot_bytes = job.spec.required_slot_bytes;
  request.slot_kinds = job.spec.slot_kinds;
  request.kinds_named = job.spec.kinds_named;
  request.hosts = job.spec.hosts;
  if (options_.shared_job_store) return request;
  request.one_host = true;
  request.host_reason = "without a shared job store a gang stays on one host";
  if (job.newest_checkpoint.has_value()) {
    if (job.spec.copies_checkpoints && !TakesGangs(job.newest_checkpoint->host)) return request;
    request.hosts = {job.newest_checkpoint->host};
    request.host_reason =
        absl::StrCat("which holds its checkpoint of step ", job.newest_checkpoint->step);
  } else if (job.source_checkpoint.has_value()) {
    request.hosts = {job.source_checkpoint->host};
    request.host_reason = absl::StrCat("which holds the checkpoint of ", job.spec.source.value());
  }
  return request;
}

bool Scheduler::TakesGangs(const std::string& host) const {
  for (const auto& [name, worker] : workers_) {
    if (worker.host == host && !worker.declared_dead && !worker.cordoned &&
        !time_.LeaseExpired(worker.silence)) {
      return true;
    }
  }
  return false;
}

// ---- the pass

void Scheduler::SchedulePass() {
  RefreshPool();
  if (pool_stale_) return;
  schedule_ = false;
  Pass pass{pool_, pool_};
  pass.workers_news = workers_news_;
  for (auto& [name, queue] : fair_.queues()) {
    if (queue.waiting.size() == 0) continue;
    pass.lines.emplace_back(queue);
    pass.lines.back().share = fair_.Share(queue);
  }
  const bool may_grow = std::exchange(may_grow_, false);
  if (pass.lines.empty() && elastic_.empty()) return;
  FindStrays(pass);
  ServeClaims(pass);
  // A queue full of jobs that wait for workers is gone through by the passes of the clock only.
  const int stuck_limit = may_grow ? std::numeric_limits<int>::max() : kStuckJobs;
  while ((pass.line = pass.Next()) != nullptr && pass.behind < options_.backfill_depth &&
         pass.stuck_jobs < stuck_limit && pass.considered < 10 * options_.backfill_depth) {
    pass.considered += !pass.heads.empty();
    const JobQueue::Entry entry = *pass.line->next.get();
    pass.line->next.Advance();
    if (!pass.MayGoBy(entry)) Consider(*entry.job, pass);
  }
  pass.served_all = pass.line == nullptr;
  // Whom a regular pass has not come to is told by one of the next.
  if (pass.served_all || may_grow) workers_news_ = false;
  // What elastic gangs take beyond their minimum must not delay a head either.
  if (pass.served_all && (may_grow || !pass.planned.empty())) MakeReservations(pass.headed, pass);
  StartPlanned(pass);
  if (may_grow && pass.served_all) GrowGangs(pass);
}

void Scheduler::FindStrays(Pass& pass) {
  for (auto it = maybe_strays_.begin(); it != maybe_strays_.end();) {
    const auto worker = workers_.find(*it);
    bool has = false;
    if (worker != workers_.end()) {
      // An agent that hangs may keep its stream for ever; its word may not come.
      const bool in_contact =
          worker->second.connected && !time_.LeaseExpired(worker->second.silence);
      for (const auto& [slot, use] : worker->second.uses) {
        if (!use.stray) continue;
        has = true;
        if (in_contact) pass.ending.insert({use.job, *it});
      }
    }
    it = has ? std::next(it) : maybe_strays_.erase(it);
  }
}

// Slots cleared by preemption are for the job that asked, whatever the shares have become since:
// else another could take them and the victims would have stopped for nothing. Then those that
// stopped to change their size.
void Scheduler::ServeClaims(Pass& pass) {
  if (claimants_.empty()) return;
  std::set<std::pair<bool, int64_t>> order;
  for (const JobId& id : claimants_) order.insert({Find(id)->resize_to > 0, Find(id)->sequence});
  for (const auto& [resized, sequence] : order) {
    Job& job = *by_sequence_.at(sequence);
    // Something else may have gone wrong since: back into the line.
    if (!(resized ? ServeResized(job, pass) : ServeClaim(job, pass))) DropClaim(job);
  }
}

void Scheduler::DropClaim(Job& job) {
  job.claims = false;
  job.resize_to = 0;
  claimants_.erase(job.id);
  Touch(job);
}

bool Scheduler::ServeClaim(Job& job, Pass& pass) {
  Pass::Line& line = *pass.LineOf(fair_.Of(job.spec));
  SlotPool cleared = pass.open;
  bool waits = pass.ending.count(job.id) > 0;
  int gpus = line.claimed_gpus, jobs = line.claimed_jobs;
  for (const auto& [other, victim] : preempting_) {
    if (victim->preempted_by != job.id) continue;
    for (SlotId slot : SlotsOf(*victim, pass.open)) cleared.Give(slot);
    waits = true;
    if (&fair_.Of(victim->spec) != line.queue) continue;
    const bool shrinks = victim->resize_to > 0;
    gpus -= RanksOf(*victim) - (shrinks ? victim->spec.gpus : 0);
    jobs -= !shrinks;
  }
  const auto limits = CheckLimits(*line.queue, job.spec.gpus, gpus, jobs).kind;
  const Placement placement = Place(RequestOf(job), cleared);
  if (limits == LimitAnswer::Kind::kWait || limits == LimitAnswer::Kind::kNever ||
      placement.answer != Placement::Answer::kFit)
    return false;
  pass.Take(placement.ranks);
  if (waits) {
    line.claimed_gpus += job.spec.gpus;
    ++line.claimed_jobs;
    return true;
  }
  line.next.Pass(&job);
  ++started_in_order_[KindOf(placement.ranks)];
  Start(job, placement.ranks, "on slots that were cleared for it", true, pass);
  line.share = fair_.Share(*line.queue);
  return true;
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
  const KindSet kinds = KindsFor(request, pool_);
  const bool first = (line.waiting & kinds) == 0;  // of its queue that waits for any of these
  if (limits.kind == LimitAnswer::Kind::kWait) {
    // Nobody of the queue passes by: a smaller job would keep a larger one waiting for ever.
    line.closed = true;
    if (!first || !TryPreempt(job, request, pass)) SetWaitReason(job, limits.reason);
    return;
  }
  if (const std::string* why = pass.WhyStuck(request)) {
    ++pass.stuck_jobs;
    return SetWaitReason(job, *why, /*needs_workers=*/true);
  }
  const Pass::Head* head = pass.HeadOf(kinds);
  const auto waits_behind_head = [&] {
    SetWaitReason(job, absl::StrCat("waits behind ", NameFor(job, *head->job)));
  };
  // What it was told while workers were away holds no more; else nothing new is to be said.
  const auto go_by = [&] {
    if (head != nullptr && job.needs_workers) waits_behind_head();
  };
  if (head != nullptr && !first && pass.KnownNotToFit(request)) return go_by();
  if (head != nullptr && job.spec.gpus <= pass.open.usable_total()) MakeReservations(kinds, pass);
  const bool known_not_to_fit = !first && Pass::Fails(request, pass.failed);
  if (known_not_to_fit && !MayFillHole(job, kinds, pass)) return go_by();
  if (TryStart(job, request, kinds, pass)) return;
  if (head != nullptr) ++pass.behind;
  const Placement placement = Place(request, pass.open);
  if (placement.answer != Placement::Answer::kFit && placement.needs_workers) {
    ++pass.stuck_jobs;
    std::string why = ExplainPlacement(request, pool_);
    if (pass.stuck.size() < kStuckKinds) pass.stuck.emplace_back(request, why);
    return SetWaitReason(job, std::move(why), /*needs_workers=*/true);
  }
  Pass::NoteFailed(request, pass.failed);
  if (placement.answer != Placement::Answer::kFit) Pass::NoteFailed(request, pass.failed_open);
  line.waiting |= kinds;
  if (first && TryPreempt(job, request, pass)) return;
  if (head == nullptr) {
    BecomeHead(job, request, kinds, pass);
  } else {
    waits_behind_head();
  }
}

bool Scheduler::TryStart(Job& job, const PlacementRequest& request, KindSet kinds, Pass& pass) {
  Placement placement = Place(request, pass.shut);
  const bool fills_hole = placement.answer != Placement::Answer::kFit;
  std::string note;
  if (const Pass::Head* head = pass.HeadOf(kinds))
    note = absl::StrCat("on slots that ", NameFor(job, *head->job), " does not need");
  for (const Pass::Head& head : pass.heads) {
    if (placement.answer == Placement::Answer::kFit) break;
    if ((head.kinds & kinds) == 0 || !EndsBefore(job, head.reservation)) continue;
    // Of what is kept for this head alone: heads share no kind.
    PlacementRequest there = request;
    there.slot_kinds.clear();
    for (size_t kind = 0; kind < pool_.kinds().size(); ++kind) {
      if ((KindBit(static_cast<int>(kind)) & head.kinds & kinds) != 0)
        there.slot_kinds.push_back(pool_.kinds()[kind]);
    }
    placement = Place(there, pass.open);
    note = absl::StrCat("to end before ", NameFor(job, *head.job), " can start");
  }
  if (placement.answer != Placement::Answer::kFit) return false;
  const std::string& kind = KindOf(placement.ranks);
  const KindSet bit = KindBit(pool_.groups()[pool_.slot(placement.ranks.front()).group].kind);
  if ((pass.headed & bit) == 0) ++started_in_order_[kind];
  pass.Take(placement.ranks);
  Start(job, placement.ranks, note, !fills_hole, pass);
  pass.line->share = fair_.Share(*pass.line->queue);
  return true;
}

// Slots that the pass has taken. An elastic gang starts when the pass is over, with what is left.
void Scheduler::Start(Job& job, std::vector<SlotId> slots, const std::string& note,
                      bool may_take_more, Pass& pass) {
  if (!IsElastic(job.spec)) return StartAttempt(job, slots, note);
  fair_.OnStart(job.spec, KindOf(slots), static_cast<int>(slots.size()));
  pass.planned.push_back({&job, std::move(slots), note, may_take_more});
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
    const bool same_queue = fair_.Find(QueueNameOf(other->spec)) == own;
    absl::Duration least = other->spec.min_runtime.value_or(options_.min_runtime);
    // A borrower cannot keep what is another's by asking for longer.
    if (!same_queue) least = std::min(least, options_.min_runtime);
    if (time_.now() - other->trains_since < least) continue;
    const bool yields =
        same_queue ? other->spec.priority < job.spec.priority : borrowers.count(other) > 0;
    if (yields) candidates.push_back({other, same_queue, RanksOf(*other), std::nullopt});
  }
  SortVictims(candidates);
  return candidates;
}

// What elastic gangs hold beyond their minimum, before any whole gang; empty where none does.
std::vector<VictimCandidate> Scheduler::ShrinkFirst(
    const std::vector<VictimCandidate>& candidates) const {
  std::vector<VictimCandidate> order, whole;
  for (VictimCandidate candidate : candidates) {
    candidate.gpus -= candidate.job->spec.gpus;
    if (candidate.gpus > 0) {
      candidate.keeps = RequestOf(*candidate.job);
      order.push_back(std::move(candidate));
    } else {
      candidate.gpus = candidate.job->spec.gpus;
      whole.push_back(std::move(candidate));
    }
  }
  if (!order.empty()) order.insert(order.end(), whole.begin(), whole.end());
  return order;
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
    const auto within_limits = [&](int gpus, int jobs) {
      const Kind kind = CheckLimits(*line.queue, job.spec.gpus, line.claimed_gpus - gpus,
                                    line.claimed_jobs - jobs)
                            .kind;
      return kind == Kind::kOwn || (!reclaim && kind == Kind::kBorrows);
    };
    Preemption preemption =
        ChooseVictims(request, pass.shut, ShrinkFirst(candidates), within_limits);
    if (preemption.victims.empty())
      preemption = ChooseVictims(request, pass.shut, candidates, within_limits);
    if (preemption.victims.empty()) continue;
    std::vector<std::string> names;
    for (const VictimCandidate& victim : preemption.victims) {
      names.push_back(NameFor(job, *victim.job));
      const std::string by = NameFor(*victim.job, job);
      const std::string why =
          victim.same_queue
              ? absl::StrCat(", which has priority ", job.spec.priority)
              : absl::StrCat(": queue ", line.queue->record.name, " takes back its quota");
      if (victim.keeps.has_value()) {
        ++victim.job->preemptions;
        victim.job->preempted_by = job.id;
        Resize(*victim.job, victim.job->spec.gpus, absl::StrCat("shrinks for ", by, why));
      } else {
        Preempt(*victim.job, job.id, absl::StrCat("preempted by ", by, why));
      }
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

void Scheduler::SetWaitReason(Job& job, std::string reason, bool needs_workers) {
  job.needs_workers = needs_workers;
  if (job.wait_reason == reason) return;
  job.wait_reason = std::move(reason);
  Changed(job.id);
}

}  // namespace ll
