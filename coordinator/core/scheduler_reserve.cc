// When gangs end and what is kept until then for the first jobs that wait (backfill.h), one for
// each type of GPU at most.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/core/scheduler_pass.h"

namespace ll {
namespace {

// A gang past its forecast is taken to end after another minute, again and again.
constexpr absl::Duration kOverrun = absl::Minutes(1);
// How late a reservation may come true before nothing is backfilled any more that could be in its
// way.
constexpr absl::Duration kPromiseSlack = absl::Minutes(1);
}  // namespace

absl::Duration Scheduler::Remaining(const Job& job) const {
  absl::Duration remaining = job.spec.forecast_duration;
  if (remaining != absl::InfiniteDuration()) {
    remaining = std::max(remaining - job.forecast_done, remaining / 10);  // forecasts err
    if (HoldsSlots(job.state)) remaining /= Speedup(job.spec, RanksOf(job));
  }
  return std::min(remaining, job.spec.max_runtime - job.run_time);
}

void Scheduler::UpdateExpectedEnd(Job& job) {
  if (job.expected_end != absl::InfiniteDuration()) ends_.erase({job.expected_end, job.sequence});
  job.expected_end = absl::InfiniteDuration();
  if (job.state == JobState::kStarting || job.state == JobState::kRunning ||
      (job.state == JobState::kPreempting && job.resize_to > 0)) {
    job.expected_end = time_.now() + Remaining(job);
  } else if (HoldsSlots(job.state)) {
    // Its ranks are ending. An estimate too late would let others into holes that are none.
    job.expected_end = time_.now();
  }
  if (job.expected_end != absl::InfiniteDuration()) ends_[{job.expected_end, job.sequence}] = &job;
}

Reservation Scheduler::ReservationOf(const PlacementRequest& request, const SlotPool& pool) const {
  // In order of time: those past their forecast count as ending in a minute.
  const absl::Duration overdue_end = time_.now() + kOverrun;
  const auto first_due = ends_.lower_bound(std::pair(time_.now(), int64_t{0}));
  auto overdue = ends_.begin(), due = first_due;
  std::vector<ExpectedEnd> ends;
  const auto add = [&](absl::Duration end, const Job* job) {
    // Its slots are for the one that claims them.
    if (job->state == JobState::kPreempting && claimants_.count(job->preempted_by) > 0) return;
    ends.push_back({end, job, SlotsOf(*job, pool)});
  };
  for (size_t limit = 64;; limit *= 8) {  // most requests need but a few ends
    while (ends.size() < limit && (overdue != first_due || due != ends_.end())) {
      if (due != ends_.end() && (overdue == first_due || due->first.first <= overdue_end)) {
        add(due->first.first, due->second);
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

// The first job that waits for slots of these kinds: later ones must not delay it.
void Scheduler::BecomeHead(Job& job, const PlacementRequest& request, KindSet kinds, Pass& pass) {
  pass.heads.push_back({&job, kinds, false, {}});
  pass.headed |= kinds;
  SetWaitReason(job, ExplainPlacement(request, pool_));
}

int64_t Scheduler::StartedInOrder(KindSet kinds) const {
  int64_t started = 0;
  for (size_t kind = 0; kind < pool_.kinds().size(); ++kind) {
    const auto count = started_in_order_.find(pool_.kinds()[kind]);
    if ((KindBit(static_cast<int>(kind)) & kinds) != 0 && count != started_in_order_.end())
      started += count->second;
  }
  return started;
}

// Only once another job might take slots: in most passes none could.
void Scheduler::MakeReservations(KindSet kinds, Pass& pass) {
  for (Pass::Head& head : pass.heads) {
    if ((head.kinds & kinds) == 0 || std::exchange(head.reserved, true)) continue;
    Job& job = *head.job;
    const PlacementRequest request = RequestOf(job);
    head.reservation = ReservationOf(request, pass.open);
    if (head.reservation.start != absl::InfiniteDuration()) {
      // What was promised before a job whose turn is before this one's took slots (a higher
      // priority, a queue with a smaller share) is not kept by holding back those behind: they did
      // not break it, and the slots would stand idle.
      const int64_t started = StartedInOrder(head.kinds);
      if (job.promised_after != started) job.promised_start = absl::InfiniteDuration();
      job.promised_after = started;
      if (job.promised_start == absl::InfiniteDuration())
        job.promised_start = head.reservation.start;
      // Gangs did not end as forecast. Nothing more goes into holes that would delay it further.
      if (head.reservation.start > job.promised_start + kPromiseSlack) {
        head.reservation = ReserveAll(request, pass.open);
      } else {
        job.promised_start = std::min(job.promised_start, head.reservation.start);
        head.reservation.start = job.promised_start;
      }
    }
    for (SlotId slot : head.reservation.slots) pass.shut.Take(slot);
  }
}

bool Scheduler::EndsBefore(const Job& job, const Reservation& reservation) const {
  return reservation.start != absl::InfiniteDuration() &&
         time_.now() + Remaining(job) <= reservation.start;
}

bool Scheduler::MayFillHole(const Job& job, KindSet kinds, const Pass& pass) const {
  return std::any_of(pass.heads.begin(), pass.heads.end(), [&](const Pass::Head& head) {
    return (head.kinds & kinds) != 0 && EndsBefore(job, head.reservation);
  });
}

}  // namespace ll
