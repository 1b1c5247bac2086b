#include "scaler/decide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/ids.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Cordon = ScalingWorker::Cordon;

constexpr absl::Duration kQuiet = absl::Seconds(60), kManual = absl::Seconds(600);

ScalingLimits Limits(int least, int most) { return {least, most, 2, kQuiet, kManual}; }

// Workers 0, 1, … with two slots each, of which so many are held.
ScalingView ViewOf(const std::vector<int>& held, int64_t pending) {
  ScalingView view;
  view.replicas = static_cast<int>(held.size());
  view.pending_slots = pending;
  for (size_t i = 0; i < held.size(); ++i)
    view.workers[static_cast<int>(i)] = {2, held[i], Cordon::kNone};
  return view;
}

TEST(ScalingPolicyTest, GrowsAtOnceByWhatWaitsAndNeverBeyondTheMost) {
  ScalingPolicy policy(Limits(0, 4));
  EXPECT_EQ(policy.Decide(ViewOf({}, 3), {}).replicas, 2);  // no worker has told its slots yet
  policy.Set(2);
  EXPECT_EQ(policy.Decide(ViewOf({2, 1}, 1), {}).replicas, std::nullopt);
  EXPECT_EQ(policy.Decide(ViewOf({2, 1}, 2), {}).replicas, 3);
  policy.Set(3);
  ScalingView coming = ViewOf({2, 1}, 2);  // the third pod is on its way: it is not asked for again
  coming.replicas = 3;
  EXPECT_EQ(policy.Decide(coming, {}).replicas, std::nullopt);
  coming.pending_slots = 1000;
  EXPECT_EQ(policy.Decide(coming, {}).replicas, 4);
}

TEST(ScalingPolicyTest, WorkersThatOthersCordonedAreMadeUpFor) {
  ScalingPolicy policy(Limits(0, 8));
  ScalingView view = ViewOf({1, 0}, 2);
  view.workers[0].cordon = view.workers[1].cordon = Cordon::kOther;
  EXPECT_EQ(policy.Decide(view, {}).replicas, 3);
  EXPECT_THAT(policy.Decide(view, {}).uncordon, IsEmpty());
}

TEST(ScalingPolicyTest, ShrinksAfterQuietOnlyWhatIsCordonedAndIdle) {
  ScalingPolicy policy(Limits(1, 8));
  ScalingView view = ViewOf({1, 0, 2, 0}, 0);  // three slots: two workers are enough
  EXPECT_THAT(policy.Decide(view, absl::Seconds(0)).cordon, IsEmpty());
  EXPECT_THAT(policy.Decide(view, absl::Seconds(59)).cordon, IsEmpty());
  auto step = policy.Decide(view, absl::Seconds(60));
  EXPECT_THAT(step.cordon, ElementsAre(2, 3));
  EXPECT_EQ(step.replicas, std::nullopt);  // seen idle before its cordon counts for nothing
  view.workers[2].cordon = view.workers[3].cordon = Cordon::kScaler;
  step = policy.Decide(view, absl::Seconds(61));
  EXPECT_EQ(step.replicas, 3);  // worker 2 is busy
  policy.Set(3);
  view.replicas = 3;
  step = policy.Decide(view, absl::Seconds(62));
  EXPECT_EQ(step.replicas, std::nullopt);
  EXPECT_THAT(step.reason, HasSubstr("worker 2 goes once"));
  view.workers[2].held = 0;
  EXPECT_EQ(policy.Decide(view, absl::Seconds(63)).replicas, 2);  // it may take longer than quiet
}

TEST(ScalingPolicyTest, ANewWishEndsTheQuietAndTakesCordonsBack) {
  ScalingPolicy policy(Limits(0, 8));
  ScalingView view = ViewOf({0, 0, 0}, 0);
  policy.Decide(view, absl::Seconds(0));
  ASSERT_THAT(policy.Decide(view, absl::Seconds(60)).cordon, ElementsAre(0, 1, 2));
  for (auto& [ordinal, worker] : view.workers) worker.cordon = Cordon::kScaler;
  view.workers[0].cordon = Cordon::kOther;
  view.pending_slots = 2;
  const auto step = policy.Decide(view, absl::Seconds(61));
  EXPECT_THAT(step.uncordon, ElementsAre(1));  // two are wanted, for the first is another's
  EXPECT_EQ(step.replicas, std::nullopt);
  EXPECT_THAT(step.reason, HasSubstr("1 of 3 workers are not needed"));
  EXPECT_EQ(policy.Decide(view, absl::Seconds(120)).replicas, std::nullopt);
  EXPECT_EQ(policy.Decide(view, absl::Seconds(121)).replicas, 2);
}

TEST(ScalingPolicyTest, ThePeakOfTheQuietTimeIsKept) {
  ScalingPolicy policy(Limits(0, 8));
  policy.Decide(ViewOf({0, 0, 0, 0}, 2), absl::Seconds(0));
  policy.Decide(ViewOf({0, 0, 0, 0}, 5), absl::Seconds(30));
  policy.Decide(ViewOf({0, 0, 0, 0}, 0), absl::Seconds(60));
  EXPECT_THAT(policy.Decide(ViewOf({0, 0, 0, 0}, 0), absl::Seconds(90)).cordon, ElementsAre(3));
}

TEST(ScalingPolicyTest, LeavesAPersonsNumberAlone) {
  ScalingPolicy policy(Limits(1, 4));
  policy.Decide(ViewOf({2, 2}, 0), absl::Seconds(0));
  ScalingView view = ViewOf({2, 2, 0}, 4);  // somebody set 3
  view.workers[2].cordon = Cordon::kScaler;
  auto step = policy.Decide(view, absl::Seconds(1));
  EXPECT_TRUE(step.left_alone);
  EXPECT_EQ(step.replicas, std::nullopt);
  EXPECT_THAT(step.uncordon, ElementsAre(2));
  EXPECT_TRUE(policy.Decide(view, absl::Seconds(600)).left_alone);
  EXPECT_EQ(policy.Decide(view, absl::Seconds(601)).replicas, 4);
  policy.Set(4);
  // Outside of the limits it is left alone for good.
  EXPECT_TRUE(policy.Decide(ViewOf({}, 4), absl::Hours(1)).left_alone);
  EXPECT_THAT(policy.Decide(ViewOf({}, 4), absl::Hours(9)).reason, HasSubstr("not within 1 to 4"));
}

TEST(ScalingPolicyTest, AnAnswerThatWasLostIsNoChangeOfAnotherPerson) {
  ScalingPolicy policy(Limits(0, 4));
  EXPECT_EQ(policy.Decide(ViewOf({2}, 4), absl::Seconds(0)).replicas, 3);
  policy.Asking(3);
  ScalingView view = ViewOf({2}, 4);
  EXPECT_EQ(policy.Decide(view, absl::Seconds(1)).replicas, 3);  // not done
  policy.Asking(3);
  view.replicas = 3;
  EXPECT_FALSE(policy.Decide(view, absl::Seconds(2)).left_alone);  // done
  view.replicas = 1;
  EXPECT_TRUE(policy.Decide(view, absl::Seconds(3)).left_alone);
}

TEST(PendingSlotsTest, CountsWhatItsQueueMayHold) {
  const std::vector<WaitingGang> gangs = {{"1", "a", 4}, {"2", "a", 2}, {"3", "a", 1},
                                          {"4", "b", 1}, {"5", "b", 1}, {"6", "c", 9}};
  EXPECT_EQ(PendingSlots(gangs, {}, {}), 18);
  const std::map<std::string, QueueRoom> rooms = {{"a", {3, {}}}, {"b", {{}, 1}}, {"c", {0, {}}}};
  EXPECT_EQ(PendingSlots(gangs, {}, rooms), 3 + 1);
  // The second started after it was seen waiting: its slots are held, and counted there.
  EXPECT_EQ(PendingSlots(gangs, {"2", "7"}, {}), 16);
}

// A cluster that the policy drives: gangs of one slot come and go at random and are placed wherever
// a worker takes them, also between a look and what is done about it; pods come late.
struct Model {
  explicit Model(uint64_t seed) : random(seed) {}

  int Below(int n) { return static_cast<int>(random.Below(n)); }
  ScalingView Look() const {
    ScalingView view;
    view.replicas = replicas;
    view.workers = workers;
    view.pending_slots = waiting;
    return view;
  }
  // Pods come; gangs come, are placed and end.
  void Live(bool pods_come) {
    for (int i = 0; pods_come && i < replicas; ++i) {
      if (there.count(i) == 0 && Below(3) == 0) {
        there.insert(i);
        workers[i].slots = 2;  // its cordon is as it was
      }
    }
    if (busy && Below(3) == 0) waiting += Below(4);
    for (const int i : there) {
      ScalingWorker& worker = workers[i];
      for (int held = worker.held; held > 0; --held) worker.held -= Below(busy ? 6 : 2) == 0;
    }
    for (const int i : there) {
      ScalingWorker& worker = workers[i];
      while (waiting > 0 && worker.cordon == Cordon::kNone && worker.held < worker.slots &&
             Below(4) != 0) {
        --waiting;
        ++worker.held;
      }
    }
  }
  void Set(int count) {
    replicas = count;
    for (auto it = there.begin(); it != there.end();)
      it = *it >= count ? there.erase(it) : std::next(it);
  }

  SeededRandom random;
  int replicas = 1;
  std::set<int> there;
  std::map<int, ScalingWorker> workers;
  int waiting = 0;
  bool busy = true;
};

TEST(ScalingPolicyTest, NeverTakesAHeldSlotAwayAndEndsWhereItShould) {
  int removed = 0, grown = 0, manual = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Model model(seed);
    const ScalingLimits limits = Limits(model.Below(3), 3 + model.Below(5));
    model.replicas = limits.least;
    ScalingPolicy policy(limits);
    std::optional<absl::Duration> left_alone_until;
    bool answer_lost = false;
    for (int round = 0; round < 600; ++round) {
      const absl::Duration now = absl::Seconds(10) * round;
      model.busy = round < 300;
      model.Live(/*pods_come=*/true);
      // A person, who may set any number within. (After a lost answer the old number set again
      // looks like a change that was never made.)
      if (model.busy && !answer_lost && model.Below(100) == 0) {
        const int count = limits.least + model.Below(limits.most - limits.least + 1);
        if (count != model.replicas) left_alone_until = now + kManual, ++manual;
        model.Set(count);
      }
      const auto step = policy.Decide(model.Look(), now);
      answer_lost = false;
      model.Live(/*pods_come=*/false);  // the look is out of date when something is done
      for (const int i : step.uncordon) {
        ASSERT_EQ(model.workers.at(i).cordon, Cordon::kScaler);
        model.workers.at(i).cordon = Cordon::kNone;
      }
      for (const int i : step.cordon) model.workers.at(i).cordon = Cordon::kScaler;
      model.Live(/*pods_come=*/false);
      if (!step.replicas) continue;
      ASSERT_FALSE(left_alone_until && now < *left_alone_until) << "a person's number was changed";
      ASSERT_GE(*step.replicas, limits.least);
      ASSERT_LE(*step.replicas, limits.most);
      for (int i = *step.replicas; i < model.replicas; ++i) {
        ASSERT_EQ(model.there.count(i) > 0 ? model.workers[i].held : 0, 0) << "worker " << i;
        ++removed;
      }
      grown += *step.replicas > model.replicas;
      if (model.Below(10) == 0) {  // another change came first
        policy.Asking(*step.replicas);
        policy.Refused();
        continue;
      }
      policy.Asking(*step.replicas);
      model.Set(*step.replicas);
      answer_lost = model.Below(10) == 0;
      if (!answer_lost) policy.Set(model.replicas);
    }
    EXPECT_EQ(model.waiting, 0);
    EXPECT_EQ(model.replicas, limits.least);
  }
  std::printf("seeds 1 to 400: %d workers removed, grown %d times, %d manual changes\n", removed,
              grown, manual);
  EXPECT_GT(removed, 1000);
  EXPECT_GT(grown, 1000);
}

}  // namespace
}  // namespace ll
