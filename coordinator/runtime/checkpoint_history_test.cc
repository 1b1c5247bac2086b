#include "coordinator/runtime/checkpoint_history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

using nlohmann::json;

json Checkpoint(int64_t step, std::vector<int64_t> removed = {}) {
  json event = {{"event", "checkpoint"},
                {"step", step},
                {"path", absl::StrCat("/j/step-", step)},
                {"bytes", 10 * step},
                {"manifest_sha256", "abc"},
                {"time", "2026-11-22T01:02:03Z"}};
  if (!removed.empty()) event["removed_steps"] = removed;
  return event;
}

TEST(CheckpointHistoryTest, WhatIsThereAndWhatWentAgain) {
  CheckpointHistory history;
  history.Take({{"event", "step"}, {"step", 10}, {"loss", 2.5}}, 1);
  history.Take({{"event", "step"}, {"step", 11}, {"loss", 2.25}}, 1);
  history.Take(Checkpoint(10), 1);  // told after the next step
  history.Take(
      {{"event", "checkpoint_copied"}, {"step", 10}, {"uri", "s3://b/p/j/e0001/step-000010"}}, 1);
  history.Take(Checkpoint(20), 1);
  history.Take(Checkpoint(30, {10, 20}), 1);
  auto list = history.List();
  ASSERT_EQ(list.size(), 2u);  // 10 is there as a copy only
  EXPECT_EQ(list[0].step, 30);
  EXPECT_EQ(list[0].size_bytes, 300);
  EXPECT_FALSE(list[0].loss.has_value());
  EXPECT_EQ(list[1].step, 10);
  EXPECT_TRUE(list[1].removed);
  EXPECT_EQ(list[1].loss, 2.5);
  history.Take({{"event", "checkpoint_copied"},
                {"step", 30},
                {"uri", "s3://b/p/j/e0001/step-000030"},
                {"removed", {"e0001/step-000010"}}},
               1);
  list = history.List();
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0].copy_uri, "s3://b/p/j/e0001/step-000030");
}

TEST(CheckpointHistoryTest, ALaterAttemptsComeFirst) {
  CheckpointHistory history;
  history.Take(Checkpoint(30), 1);
  history.Take(Checkpoint(20), 2);
  const auto list = history.List();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].epoch, 2);
}

TEST(CheckpointHistoryTest, OddEventsChangeNothing) {
  CheckpointHistory history;
  for (const char* text :
       {R"({})", R"({"event":"checkpoint"})", R"({"event":"checkpoint","step":"x"})",
        R"({"event":3,"step":1})", R"({"event":"checkpoint_copied","step":9})"}) {
    history.Take(json::parse(text), 1);
  }
  EXPECT_TRUE(history.List().empty());
  json odd = Checkpoint(1);
  odd["removed_steps"] = {"a", nullptr, 1.5, 99};
  odd["bytes"] = "many";
  history.Take(odd, 1);
  EXPECT_EQ(history.List().size(), 1u);
}

TEST(CheckpointHistoryTest, WhyItIsThere) {
  CheckpointFacts facts;
  facts.step = 2000;
  EXPECT_EQ(WhyKept({3, 0}, facts, 0), "newest");
  EXPECT_EQ(WhyKept({3, 0}, facts, 2), "one of the 3 newest");
  EXPECT_EQ(WhyKept({3, 1000}, facts, 3), "multiple of 1000");
  EXPECT_EQ(WhyKept({3, 999}, facts, 3), "left by an earlier attempt");
  EXPECT_EQ(WhyKept({0, 0}, facts, 3), "all are kept");
}

}  // namespace
}  // namespace ll
