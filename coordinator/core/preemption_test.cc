#include "coordinator/core/preemption.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/ids.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

// Two slots on each of `hosts` hosts; jobs run where they are put.
class ChooseVictimsTest : public testing::Test {
 protected:
  void Hosts(int hosts) {
    std::vector<HostView> views;
    for (int i = 0; i < hosts; ++i) {
      views.push_back({WorkerId(absl::StrCat("w", i)), absl::StrCat("h", i)});
      for (int s = 0; s < 2; ++s) views.back().slots.push_back({s, "cpu", 8});
    }
    pool_ = SlotPool(views);
  }
  Job* Run(const std::string& id, std::vector<SlotId> slots, int priority = 0,
           int64_t trains_since_seconds = 0) {
    jobs_.push_back(std::make_unique<Job>());
    Job* job = jobs_.back().get();
    job->id = JobId(id);
    job->sequence = static_cast<int64_t>(jobs_.size());
    job->spec.gpus = static_cast<int>(slots.size());
    job->spec.priority = priority;
    job->trains_since = absl::Seconds(trains_since_seconds);
    job->attempt.emplace();
    for (SlotId slot : slots) {
      job->attempt->ranks.push_back({pool_.slot(slot).worker, pool_.slot(slot).index});
      pool_.Take(slot);
    }
    candidates_.push_back({job, true, job->spec.gpus});
    return job;
  }
  std::string Choose(int ranks, bool one_host = false) {
    PlacementRequest request;
    request.ranks = ranks;
    request.one_host = one_host;
    SortVictims(candidates_);
    const Preemption preemption =
        ChooseVictims(request, pool_, candidates_, [this](int gpus, int) { return gpus >= must_; });
    EXPECT_EQ(preemption.victims.empty(), preemption.slots.empty());
    return absl::StrJoin(preemption.victims, " ",
                         [](std::string* out, const VictimCandidate& victim) {
                           out->append(victim.job->id.value());
                           if (victim.keeps.has_value()) out->append("-");
                         });
  }

  SlotPool pool_;
  int must_ = 0;  // GPUs that the own queue must get back
  std::vector<std::unique_ptr<Job>> jobs_;
  std::vector<VictimCandidate> candidates_;
};

TEST_F(ChooseVictimsTest, LowPriorityThenTheYoungest) {
  Hosts(2);
  Run("old", {0}, 0, 10);
  Run("young", {1}, 0, 50);
  Run("better", {2}, 3, 99);
  Run("other", {3}, 3, 99);
  EXPECT_EQ(Choose(1), "young");
  EXPECT_EQ(Choose(2), "young old");
}

TEST_F(ChooseVictimsTest, NobodyWhenItWouldNotFitEvenThen) {
  Hosts(2);
  Run("a", {0});
  pool_.Take(1);  // runs something that does not yield
  EXPECT_EQ(Choose(4), "");
  EXPECT_EQ(Choose(2, /*one_host=*/true), "");  // w1 is free: nothing needs to yield…
}

TEST_F(ChooseVictimsTest, OnlyThoseWhoseEndHelps) {
  Hosts(3);
  Run("elsewhere", {0}, 0, 90);  // the first to yield, but on a host that stays half full
  pool_.Take(1);
  Run("a", {2}, 0, 80);
  Run("b", {3}, 0, 70);
  Run("c", {4, 5}, 0, 60);
  EXPECT_EQ(Choose(2, /*one_host=*/true), "a b");
}

TEST_F(ChooseVictimsTest, WholeGangs) {
  Hosts(2);
  Run("gang", {0, 1, 2, 3});
  EXPECT_EQ(Choose(1), "gang");
}

TEST_F(ChooseVictimsTest, FreesALimitThoughSlotsAreFree) {
  Hosts(2);
  Run("a", {0}, 0, 20);
  Run("b", {1}, 0, 10);
  must_ = 2;
  EXPECT_EQ(Choose(1), "a b");
}

TEST_F(ChooseVictimsTest, GangsShrinkWhereWhatTheyKeepFitsBesideThePreemptor) {
  Hosts(2);
  Run("elastic", {0, 1, 2, 3}, 0, 10);
  candidates_[0].keeps.emplace();
  candidates_[0].keeps->ranks = 2;
  candidates_[0].gpus = 2;
  EXPECT_EQ(Choose(2), "elastic-");
  EXPECT_EQ(Choose(3), "");
  candidates_[0].keeps->one_host = true;
  EXPECT_EQ(Choose(2, /*one_host=*/true), "elastic-");
  must_ = 3;  // it gives back two
  EXPECT_EQ(Choose(1), "");
}

TEST(Borrowers, AreThoseBeyondTheQuotaInOrder) {
  Queue queue;
  queue.record.quota_gpus = 4;
  Job jobs[4];
  for (int i = 0; i < 4; ++i) {
    jobs[i].sequence = i;
    jobs[i].spec.gpus = 2;
  }
  jobs[3].spec.priority = 1;  // first of all
  EXPECT_EQ(Borrowers(queue, {&jobs[0], &jobs[1], &jobs[2], &jobs[3]}),
            (std::vector<const Job*>{&jobs[1], &jobs[2]}));
  queue.record.quota_gpus.reset();
  EXPECT_TRUE(Borrowers(queue, {&jobs[0], &jobs[1]}).empty());
}

}  // namespace
}  // namespace ll
