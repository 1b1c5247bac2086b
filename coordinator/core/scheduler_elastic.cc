// Elastic gangs: the last part of a pass gives what nobody else can use to those that start, and
// lets those that run start again larger. docs/scheduling.md says the rules.
#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/format.h"
#include "coordinator/core/scheduler_pass.h"

namespace ll {

const std::string& Scheduler::KindOf(const std::vector<SlotId>& slots) const {
  return pool_.kinds()[pool_.groups()[pool_.slot(slots.front()).group].kind];
}

// It stopped so that it could start again: what it held is its own, as far as it is still there
// and no preemptor's. False: not even its minimum is.
bool Scheduler::ServeResized(Job& job, Pass& pass) {
  Pass::Line& line = *pass.LineOf(fair_.Of(job.spec));
  const auto limits =
      CheckLimits(*line.queue, job.spec.gpus, line.claimed_gpus, line.claimed_jobs).kind;
  if (limits == LimitAnswer::Kind::kWait || limits == LimitAnswer::Kind::kNever) return false;
  const int room = RoomWithoutBorrowing(*line.queue, line.claimed_gpus);
  const int most = std::min(job.resize_to, RanksOf(job));
  PlacementRequest request = RequestOf(job);
  request.ranks = WholeGroups(job.spec, LargestFit(request, pass.open, job.spec.gpus,
                                                   std::max(job.spec.gpus, std::min(most, room))));
  if (request.ranks == 0) return false;
  std::vector<SlotId> slots = Place(request, pass.open).ranks;
  pass.Take(slots);
  if (pass.ending.count(job.id) > 0) {
    line.claimed_gpus += request.ranks;
    ++line.claimed_jobs;
    return true;
  }
  line.next.Pass(&job);
  ++started_in_order_[KindOf(slots)];
  Start(job, std::move(slots), "on slots that it held", /*may_take_more=*/true, pass);
  line.share = fair_.Share(*line.queue);
  return true;
}

// In the order in which their turn came, so that the first takes first of what is left.
void Scheduler::StartPlanned(Pass& pass) {
  for (Pass::Planned& planned : pass.planned) {
    Job& job = *planned.job;
    const int has = static_cast<int>(planned.slots.size());
    Queue& queue = fair_.Of(job.spec);
    fair_.OnEnd(job.spec, KindOf(planned.slots), has);
    if (planned.may_take_more && pass.served_all) {
      const int room = RoomWithoutBorrowing(queue, pass.LineOf(queue)->claimed_gpus);
      pass.Give(planned.slots);
      PlacementRequest request = RequestOf(job);
      const int most =
          LargestFit(request, pass.shut, has, std::max(has, std::min(MaxGpus(job.spec), room)));
      // A reservation may have spread over what it holds (ReserveAll); then there is no more.
      if (most > has) {
        request.ranks = UsefulSize(job.spec, most);
        planned.slots = Place(request, pass.shut).ranks;
      }
      pass.Take(planned.slots);
    }
    StartAttempt(job, planned.slots, planned.note);
  }
}

// How many ranks the running gang would have if it started again now, its own slots given to
// `pool`; no more than it has where it cannot grow.
int Scheduler::GrowthOf(const Job& job, SlotPool& pool, int more_gpus) const {
  const int has = RanksOf(job);
  const int room = RoomWithoutBorrowing(*fair_.Find(QueueNameOf(job.spec)), more_gpus);
  const int most =
      room > MaxGpus(job.spec) ? MaxGpus(job.spec) : std::min(MaxGpus(job.spec), has + room);
  if (most <= has) return has;
  const std::vector<SlotId> own = SlotsOf(job, pool);
  for (SlotId slot : own) pool.Give(slot);
  const int size = LargestFit(RequestOf(job), pool, has, most);
  for (SlotId slot : own) pool.Take(slot);
  return size <= has ? has : UsefulSize(job.spec, size);
}

void Scheduler::GrowGangs(Pass& pass) {
  SlotPool pool = pass.shut;
  std::map<const Queue*, int> more_gpus;  // claimed, or hoped for by gangs that are growing
  for (const Pass::Line& line : pass.lines) more_gpus[line.queue] = line.claimed_gpus;
  std::vector<std::tuple<double, int, int64_t>> order;
  for (const auto& [sequence, job] : elastic_) {
    Queue& queue = fair_.Of(job->spec);
    if (job->resize_to > RanksOf(*job)) {
      PlacementRequest request = RequestOf(*job);
      request.ranks = job->resize_to;
      for (SlotId slot : SlotsOf(*job, pool)) pool.Give(slot);
      for (SlotId slot : Place(request, pool).ranks) pool.Take(slot);
      more_gpus[&queue] += job->resize_to - RanksOf(*job);
    } else if (job->state == JobState::kRunning && !job->headless &&
               job->attempt->stop == StopKind::kNone && RanksOf(*job) < MaxGpus(job->spec)) {
      order.push_back({fair_.Share(queue), -job->spec.priority, sequence});
    }
  }
  std::sort(order.begin(), order.end());
  for (const auto& [share, priority, sequence] : order) {
    Job& job = *elastic_.at(sequence);
    const int has = RanksOf(job);
    const int size =
        pool.usable_total() == 0 ? has : GrowthOf(job, pool, more_gpus[&fair_.Of(job.spec)]);
    if (!WorthGrowing(job.spec, has, size, Remaining(job), job.run_time, options_.elastic)) {
      job.could_grow_since = absl::InfiniteDuration();
      continue;
    }
    job.could_grow_since = std::min(job.could_grow_since, time_.now());
    const absl::Duration idle = time_.now() - job.could_grow_since;
    const absl::Duration least = job.spec.min_runtime.value_or(options_.min_runtime);
    if (idle < options_.elastic.grow_after_idle || time_.now() - job.trains_since < least ||
        time_.now() - job.resized < options_.elastic.resize_interval)
      continue;
    Resize(job, size,
           absl::StrCat("grows from ", has, " to ", size,
                        " ranks, which nobody else could use for ", HumanDuration(idle)));
    return;  // the next one sees in another pass what this one leaves
  }
}

void Scheduler::Resize(Job& job, int to, const std::string& reason) {
  LL_CHECK(to >= job.spec.gpus && to <= MaxGpus(job.spec));
  ++job.resizes;
  job.resized = time_.now();
  job.resize_to = to;
  SetState(job, JobState::kPreempting, reason);
  BeginStop(job, StopKind::kCheckpoint, reason);
}

}  // namespace ll
