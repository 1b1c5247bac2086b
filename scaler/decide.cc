#include "scaler/decide.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/format.h"

namespace ll {
namespace {

using Cordon = ScalingWorker::Cordon;

void UncordonBelow(const ScalingView& view, int end, ScalingPolicy::Step& step) {
  for (const auto& [ordinal, worker] : view.workers) {
    if (ordinal < end && worker.cordon == Cordon::kScaler) step.uncordon.push_back(ordinal);
  }
}

// One that never came to the coordinator holds nothing.
bool MayGo(const ScalingView& view, int ordinal) {
  const auto it = view.workers.find(ordinal);
  return it == view.workers.end() || (it->second.held == 0 && it->second.cordon != Cordon::kNone);
}

}  // namespace

int64_t PendingSlots(const std::vector<WaitingGang>& gangs, const std::set<std::string>& holders,
                     std::map<std::string, QueueRoom> rooms) {
  int64_t total = 0;
  for (const WaitingGang& gang : gangs) {
    if (holders.count(gang.job_id) > 0) continue;
    QueueRoom& room = rooms[gang.queue];
    if (room.slots.value_or(gang.slots) < gang.slots || room.gangs.value_or(1) < 1) continue;
    if (room.slots) *room.slots -= gang.slots;
    if (room.gangs) --*room.gangs;
    total += gang.slots;
  }
  return total;
}

// That gangs can have of it. A pod that has not come yet will be as the others are.
int ScalingPolicy::SlotsOf(const ScalingView& view, int ordinal) const {
  const auto it = view.workers.find(ordinal);
  if (it != view.workers.end() && it->second.cordon == Cordon::kOther) return it->second.held;
  if (it != view.workers.end() && it->second.slots > 0) return it->second.slots;
  int usual = 0;
  for (const auto& [number, worker] : view.workers) usual = std::max(usual, worker.slots);
  return usual > 0 ? usual : limits_.slots_per_worker;
}

// The fewest workers, counted from 0, with as many slots as are held and waited for.
int ScalingPolicy::Wanted(const ScalingView& view) const {
  int64_t slots = view.pending_slots;
  for (const auto& [ordinal, worker] : view.workers) {
    if (ordinal < view.replicas) slots += worker.held;
  }
  int wanted = 0;
  for (; wanted < limits_.most && slots > 0; ++wanted) slots -= SlotsOf(view, wanted);
  return std::max(wanted, limits_.least);
}

// A number outside of the limits, or one that changed without this policy's doing, is a person's.
bool ScalingPolicy::LeaveAlone(const ScalingView& view, absl::Duration now, Step& step) {
  const bool changed = known_ && view.replicas != *known_ && view.replicas != asked_;
  if (view.replicas == asked_) asked_.reset();  // it was done, although nobody answered
  known_ = view.replicas;
  if (changed) manual_until_ = now + limits_.manual_time;
  if (view.replicas < limits_.least || view.replicas > limits_.most) {
    step.reason = absl::StrCat("left alone: ", view.replicas, " workers are not within ",
                               limits_.least, " to ", limits_.most,
                               ", so somebody set them; set a number within to give it back");
  } else if (now < manual_until_) {
    step.reason =
        absl::StrCat("left alone: somebody else set ", view.replicas, " workers; scaling goes on ",
                     HumanDuration(limits_.manual_time), " after the change");
  } else {
    return false;
  }
  step.left_alone = true;
  enough_.reset();
  UncordonBelow(view, view.replicas, step);
  return true;
}

void ScalingPolicy::Shrink(const ScalingView& view, absl::Duration now, Step& step) {
  if (!enough_ || *enough_ < step.wanted || *enough_ >= view.replicas) {
    enough_ = step.wanted;
    enough_since_ = now;
  }
  UncordonBelow(view, *enough_, step);
  const std::string surplus =
      absl::StrCat(view.replicas - *enough_, " of ", view.replicas, " workers are not needed");
  if (now - enough_since_ < limits_.quiet_time) {
    step.reason = absl::StrCat(surplus, "; they go once that has been so for ",
                               HumanDuration(limits_.quiet_time));
    return;
  }
  for (const auto& [ordinal, worker] : view.workers) {
    const bool last = ordinal >= *enough_ && ordinal < view.replicas;
    if (last && worker.cordon == Cordon::kNone) step.cordon.push_back(ordinal);
  }
  int left = view.replicas;
  while (left > *enough_ && MayGo(view, left - 1)) --left;
  if (left < view.replicas) {
    step.replicas = left;
    step.reason = absl::StrCat(surplus, ", and the last ", view.replicas - left, " are idle");
  } else {
    step.reason = absl::StrCat(surplus, "; worker ", left - 1,
                               " goes once it is cordoned and what runs there has ended");
  }
}

ScalingPolicy::Step ScalingPolicy::Decide(const ScalingView& view, absl::Duration now) {
  Step step;
  step.wanted = Wanted(view);
  if (LeaveAlone(view, now, step)) return step;
  if (step.wanted < view.replicas) {
    Shrink(view, now, step);
    return step;
  }
  enough_.reset();
  UncordonBelow(view, step.wanted, step);
  step.reason = absl::StrCat(step.wanted, " workers are wanted: ", view.pending_slots,
                             " slots are waited for");
  if (step.wanted > view.replicas) step.replicas = step.wanted;
  return step;
}

}  // namespace ll
