#include "worker/trainer/guard/memory_ladder.h"

#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(MemoryLadderTest, ACpuGoesFromKeepingAllToKeepingInputs) {
  MemoryLadder ladder({"none", false}, /*gpu=*/false);
  auto change = ladder.StepDown();
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->field, "recompute");
  EXPECT_EQ(change->from, "none");
  EXPECT_EQ(change->to, "selective");
  EXPECT_EQ(change->policy, (MemoryPolicy{"selective", false}));
  EXPECT_EQ(ladder.policy(), change->policy);
  change = ladder.StepDown();
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->to, "full");
  EXPECT_FALSE(ladder.StepDown().has_value());
  EXPECT_EQ(ladder.policy(), (MemoryPolicy{"full", false}));
  EXPECT_EQ(ladder.Tried(), "recompute none, then recompute selective, then recompute full");
}

TEST(MemoryLadderTest, AGpuOffloadsLast) {
  MemoryLadder ladder({"full", false}, /*gpu=*/true);
  const auto change = ladder.StepDown();
  ASSERT_TRUE(change.has_value());
  EXPECT_EQ(change->field, "activation_offload");
  EXPECT_EQ(change->from, "false");
  EXPECT_EQ(change->to, "true");
  EXPECT_EQ(change->policy, (MemoryPolicy{"full", true}));
  EXPECT_FALSE(ladder.StepDown().has_value());
  EXPECT_EQ(ladder.Tried(), "recompute full, then recompute full, activation_offload");
}

TEST(MemoryLadderTest, WhatIsOffloadedAlreadyIsTheLastRung) {
  MemoryLadder ladder({"full", true}, /*gpu=*/true);
  EXPECT_FALSE(ladder.StepDown().has_value());
}

TEST(MemoryLadderTest, RungsAreInOrderAndEachStepIsOneKey) {
  for (const bool gpu : {false, true}) {
    const auto rungs = MemoryRungs(gpu);
    for (size_t i = 0; i < rungs.size(); ++i) {
      EXPECT_EQ(RungOf(rungs[i]), i);
      if (i == 0) continue;
      const int changed = (rungs[i].recompute != rungs[i - 1].recompute) +
                          (rungs[i].activation_offload != rungs[i - 1].activation_offload);
      EXPECT_EQ(changed, 1) << PolicyText(rungs[i]);
    }
  }
}

TEST(MemoryLadderTest, OfASpec) {
  JobSpec spec;
  spec.recompute = "full";
  spec.activation_offload = true;
  EXPECT_EQ(PolicyOf(spec), (MemoryPolicy{"full", true}));
  spec.recompute = "selective";
  spec.activation_offload.reset();
  EXPECT_EQ(PolicyOf(spec), (MemoryPolicy{"selective", false}));
}

}  // namespace
}  // namespace ll
