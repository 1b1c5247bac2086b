#include "coordinator/core/job_state.h"

#include <set>
#include <string>

#include "gtest/gtest.h"

namespace ll {
namespace {

using enum JobState;

TEST(JobState, EndsHaveNoWayOut) {
  for (JobState to : kAllJobStates) {
    EXPECT_FALSE(MayTransition(kSucceeded, to));
    EXPECT_FALSE(MayTransition(kFailed, to));
    EXPECT_FALSE(MayTransition(kCancelled, to));
  }
}

TEST(JobState, EveryLiveStateCanBeCancelled) {
  for (JobState from : kAllJobStates) {
    if (IsTerminal(from)) continue;
    // With ranks running only by way of CANCELLING, which waits for their end.
    const bool direct = MayTransition(from, kCancelled), by_way = MayTransition(from, kCancelling);
    EXPECT_EQ(direct, !HoldsSlots(from) || from == kCancelling) << JobStateName(from);
    EXPECT_TRUE(direct || by_way) << JobStateName(from);
  }
}

TEST(JobState, AttemptsBeginOnlyFromTheQueue) {
  for (JobState from : kAllJobStates)
    EXPECT_EQ(MayTransition(from, kStarting), from == kQueued) << JobStateName(from);
}

TEST(JobState, EveryStateIsReachable) {
  std::set<JobState> reached = {kBlocked, kQueued};
  for (size_t before = 0; before != reached.size();) {
    before = reached.size();
    for (JobState from : kAllJobStates) {
      for (JobState to : kAllJobStates) {
        if (reached.count(from) > 0 && MayTransition(from, to)) reached.insert(to);
      }
    }
  }
  for (JobState state : kAllJobStates) EXPECT_EQ(reached.count(state), 1u) << JobStateName(state);
}

TEST(JobState, NamesDiffer) {
  std::set<std::string> names;
  for (JobState state : kAllJobStates) names.insert(std::string(JobStateName(state)));
  EXPECT_EQ(names.size(), std::size(kAllJobStates));
}

}  // namespace
}  // namespace ll
