// Why a queued job waits, when it will probably start, and what would make it sooner: one sentence.
#include <algorithm>
#include <climits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

// Run times against their forecasts: the interval given is from all ends early to all ends late.
constexpr double kEarly = 0.8, kLate = 1.5;
// With more jobs ahead nothing useful can be said, and saying it would take long.
constexpr size_t kMostAhead = 32;
// Jobs that cannot start, or may not, stand in front in thousands: so many are looked at, and so
// many kinds of what cannot be placed are remembered.
constexpr int kMostLookedAt = 2000;
constexpr size_t kStuckRequests = 64;

std::string In(absl::Duration wait) {
  return HumanDuration(std::max(absl::ZeroDuration(), absl::Trunc(wait, absl::Seconds(1))));
}

}  // namespace

// As shares stand now; at most kMostAhead. The driver's thread waits for the answer.
Scheduler::Ahead Scheduler::AheadOf(const Job& job) const {
  const Queue* own = fair_.Find(QueueNameOf(job.spec));
  const double share = fair_.Share(*own);
  const KindSet kinds = KindsFor(RequestOf(job), pool_);
  Ahead ahead;
  int looked_at = 0;
  std::vector<PlacementRequest> stuck;  // only the return of a worker helps
  for (const auto& [name, queue] : fair_.queues()) {
    if (&queue != own && fair_.Share(queue) >= share) continue;
    for (const JobQueue::Entry& entry : queue.waiting) {
      const Job* other = entry.job;
      if (other == &job) break;
      if (++looked_at > kMostLookedAt) {
        ahead.all = false;
        return ahead;
      }
      const auto limits = CheckLimits(queue, other->spec.gpus).kind;
      if (limits == LimitAnswer::Kind::kWait || limits == LimitAnswer::Kind::kNever) continue;
      PlacementRequest request = RequestOf(*other);
      // Who waits for other types of slots is not in its way.
      if ((KindsFor(request, pool_) & kinds) == 0) continue;
      if (std::find(stuck.begin(), stuck.end(), request) != stuck.end()) continue;
      const Placement placement = Place(request, pool_);
      if (placement.answer == Placement::Answer::kInfeasible ||
          (placement.answer == Placement::Answer::kWait && placement.needs_workers)) {
        if (stuck.size() < kStuckRequests) stuck.push_back(std::move(request));
        continue;
      }
      if (ahead.jobs.size() == kMostAhead) {
        ahead.all = false;
        return ahead;
      }
      ahead.jobs.push_back(other);
    }
  }
  return ahead;
}

// When everything ends `factor` times as late as forecast and jobs start in order, without
// backfill. Infinite: it hangs on a job without a forecast. `last` is whose end it waits for.
absl::Duration Scheduler::PredictStart(const Job& job, const std::vector<const Job*>& ahead,
                                       double factor, const Job** last) const {
  SlotPool pool = pool_;
  std::vector<ExpectedEnd> ends;
  for (const auto& [end, running] : ends_) {
    const absl::Duration left = std::max(end.first - time_.now(), absl::ZeroDuration()) * factor;
    ends.push_back({time_.now() + left, running, SlotsOf(*running, pool)});
  }
  absl::Duration start = time_.now();
  std::vector<const Job*> order = ahead;
  order.push_back(&job);
  for (const Job* next : order) {
    const PlacementRequest request = RequestOf(*next);
    Placement placement = Place(request, pool);
    std::vector<SlotId> slots = placement.ranks;
    if (placement.answer != Placement::Answer::kFit) {
      const Reservation reservation = Reserve(request, pool, ends);
      if (reservation.start == absl::InfiniteDuration()) return absl::InfiniteDuration();
      start = std::max(start, reservation.start);
      slots = reservation.slots;
      if (next == &job) *last = reservation.last;
      // What ends until then is free for those behind.
      auto until = ends.begin();
      for (; until != ends.end() && until->end <= start; ++until) {
        for (SlotId slot : until->slots) pool.Give(slot);
      }
      ends.erase(ends.begin(), until);
    }
    for (SlotId slot : slots) pool.Take(slot);
    const absl::Duration runs = Remaining(*next) * factor;
    if (runs == absl::InfiniteDuration()) continue;
    ExpectedEnd end{start + runs, next, slots};
    ends.insert(std::upper_bound(ends.begin(), ends.end(), end,
                                 [](const auto& a, const auto& b) { return a.end < b.end; }),
                std::move(end));
  }
  return start;
}

std::pair<absl::Duration, absl::Duration> Scheduler::StartsIn(const Job& job,
                                                              const std::vector<const Job*>& ahead,
                                                              const Job** last) const {
  const absl::Duration early = PredictStart(job, ahead, kEarly, last);
  const absl::Duration late = PredictStart(job, ahead, kLate, last);
  return {early - time_.now(), late - time_.now()};
}

std::optional<std::pair<absl::Duration, absl::Duration>> Scheduler::PredictedWait(
    const Job& job) const {
  if (job.state != JobState::kQueued || job.claims) return std::nullopt;
  const auto limits = CheckLimits(*fair_.Find(QueueNameOf(job.spec)), job.spec.gpus).kind;
  if (limits == LimitAnswer::Kind::kWait || limits == LimitAnswer::Kind::kNever)
    return std::nullopt;
  const Placement placement = Place(RequestOf(job), pool_);
  const bool fits = placement.answer == Placement::Answer::kFit;
  if (placement.answer == Placement::Answer::kInfeasible || (!fits && placement.needs_workers))
    return std::nullopt;
  const Ahead ahead = AheadOf(job);
  if (!ahead.all) return std::nullopt;
  const Job* last = nullptr;
  const auto [early, late] = StartsIn(job, ahead.jobs, &last);
  if (late == absl::InfiniteDuration()) return std::nullopt;
  return std::pair(std::max(early, absl::ZeroDuration()), std::max(late, absl::ZeroDuration()));
}

std::string Scheduler::Sooner(const Job& job, const PlacementRequest& request, const Queue& queue,
                              const Job* last) const {
  std::vector<std::string> ways;
  const LimitAnswer limits = CheckLimits(queue, job.spec.gpus);
  const bool fits = Place(request, pool_).answer == Placement::Answer::kFit;
  if (fits && limits.kind == LimitAnswer::Kind::kWait) {
    ways.push_back(absl::StrCat("a larger limit of queue ", queue.record.name,
                                " (llctl queues set) would start it now"));
  }
  PlacementRequest fewer = request;
  const bool one_may_start = CheckLimits(queue, 1).reason.empty();
  const int may_hold = queue.record.max_gpus.value_or(INT_MAX) - queue.gpus;
  const int most = std::min(job.spec.gpus - 1, may_hold);
  fewer.ranks =
      fits || !one_may_start ? 0 : WholeGroups(job.spec, LargestFit(fewer, pool_, 1, most));
  if (fewer.ranks > 0) ways.push_back(absl::StrCat("with gpus ", fewer.ranks, " it fits now"));
  const std::string other = fits ? "" : OtherTypes(job, request, queue);
  if (!other.empty()) ways.push_back(other);
  if (last != nullptr && last->expected_end != absl::InfiniteDuration()) {
    ways.push_back(absl::StrCat("an earlier end of ", NameFor(job, *last), ", expected in ",
                                In(last->expected_end - time_.now()), ", would help"));
  }
  return absl::StrJoin(ways, "; ");
}

// A type of GPUs that the user left out and that would do now; "": none.
std::string Scheduler::OtherTypes(const Job& job, PlacementRequest request,
                                  const Queue& queue) const {
  const auto limits = CheckLimits(queue, job.spec.gpus).kind;
  if (limits == LimitAnswer::Kind::kWait || limits == LimitAnswer::Kind::kNever) return "";
  for (const std::string& kind : job.spec.other_kinds) {
    request.slot_kinds = {kind};
    if (Place(request, pool_).answer == Placement::Answer::kFit)
      return absl::StrCat("with gpu_types ", kind, " it fits now");
  }
  return "";
}

std::string Scheduler::WhyQueued(const Job& job) const {
  const Queue& queue = *fair_.Find(QueueNameOf(job.spec));
  const PlacementRequest request = RequestOf(job);
  const LimitAnswer limits = CheckLimits(queue, job.spec.gpus);
  if (limits.kind == LimitAnswer::Kind::kNever) return absl::StrCat("it ", limits.reason);
  const Placement placement = Place(request, pool_);
  const bool fits = placement.answer == Placement::Answer::kFit;
  if (!fits && (placement.answer == Placement::Answer::kInfeasible || placement.needs_workers)) {
    const std::string other = OtherTypes(job, request, queue);
    return absl::StrCat(placement.answer == Placement::Answer::kInfeasible
                            ? "cannot run on this cluster: it "
                            : "it ",
                        ExplainPlacement(request, pool_), other.empty() ? "" : "; ", other);
  }
  const Ahead ahead = AheadOf(job);
  std::string text;
  if (job.claims || (fits && !job.wait_reason.empty())) {
    text = job.wait_reason;
  } else if (limits.kind == LimitAnswer::Kind::kWait) {
    text = absl::StrCat("it ", limits.reason);
  } else if (!ahead.jobs.empty()) {
    text = absl::StrCat("waits behind ", NameFor(job, *ahead.jobs.front()), " in the queue");
  } else {
    text = absl::StrCat("it ", ExplainPlacement(request, pool_));
  }
  const Job* last = nullptr;
  if (ahead.all && limits.kind != LimitAnswer::Kind::kWait && !job.claims) {
    const auto [early, late] = StartsIn(job, ahead.jobs, &last);
    if (late != absl::InfiniteDuration() && late > absl::ZeroDuration())
      absl::StrAppend(&text, "; expected to start in ", In(early), " to ", In(late));
  }
  const std::string sooner = Sooner(job, request, queue, last);
  if (!sooner.empty()) absl::StrAppend(&text, "; ", sooner);
  return text;
}

}  // namespace ll
