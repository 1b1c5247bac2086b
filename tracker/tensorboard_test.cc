#include "tracker/tensorboard.h"

#include <cmath>
#include <cstring>

#include "absl/strings/match.h"
#include "base/crc32c.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/tfevents.pb.h"
#include "tracker/tfevents.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::SizeIs;

uint32_t Masked(const std::string& bytes) {
  const uint32_t crc = Crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

// Reads a file as TensorBoard does: a record whose sums are wrong ends it.
std::vector<tensorboard::Event> ReadEvents(const std::string& bytes) {
  std::vector<tensorboard::Event> events;
  for (size_t at = 0; at + 12 <= bytes.size();) {
    uint64_t length;
    uint32_t sum;
    std::memcpy(&length, &bytes[at], 8);
    std::memcpy(&sum, &bytes[at + 8], 4);
    EXPECT_EQ(sum, Masked(bytes.substr(at, 8)));
    EXPECT_LE(at + 16 + length, bytes.size());
    const std::string data = bytes.substr(at + 12, length);
    std::memcpy(&sum, &bytes[at + 12 + length], 4);
    EXPECT_EQ(sum, Masked(data));
    EXPECT_TRUE(events.emplace_back().ParseFromString(data));
    at += 16 + length;
  }
  return events;
}

TEST(TfEventsTest, ARecordAsTensorBoardWritesIt) {
  // By masked_crc32c of tensorboard 2.21.0.
  const std::string expected(
      "\x05\x00\x00\x00\x00\x00\x00\x00\xea\xb2\x04\x3e"
      "hello"
      "\xbb\x1f\x1c\x19",
      21);
  EXPECT_EQ(TfRecord("hello"), expected);
}

TrackerEvent Event(TrackerEvent::Kind kind, int64_t epoch, int64_t step) {
  static const auto job = std::make_shared<const TrackedJob>(TrackedJob{.id = "job-000000000001"});
  TrackerEvent event;
  event.kind = kind;
  event.job = job;
  event.time = absl::FromUnixSeconds(1'700'000'000) + absl::Milliseconds(1500 * step);
  event.epoch = epoch;
  event.step = step;
  return event;
}

TEST(TensorBoardTrackerTest, WritesOneFileAnAttempt) {
  const TempDir made;
  const std::string& dir = made.path();
  TensorBoardTracker tracker(dir);
  std::vector<TrackerEvent> batch;
  for (int i = 1; i <= 3; ++i) {
    batch.push_back(Event(TrackerEvent::Kind::kStep, i < 3 ? 1 : 2, i));
    batch.back().values = {{"loss", i == 2 ? NAN : 1.0 / i}};
    batch.back().phases = {{"forward", 0.25}};
  }
  batch.push_back(Event(TrackerEvent::Kind::kEvaluation, 2, 3));
  batch.back().values = {{"perplexity", 9.5}};
  batch.push_back(batch[0]);
  batch.back().replayed = true;
  LL_ASSERT_OK(tracker.Take(batch));
  const std::string folder = dir + "/job-000000000001";
  LL_ASSERT_OK_AND_ASSIGN(const auto files, ListDir(folder));
  ASSERT_THAT(files, ElementsAre("events.out.tfevents.1700000001.ll-e0001",
                                 "events.out.tfevents.1700000004.ll-e0002"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string first, ReadFile(folder + "/" + files[0]));
  const auto events = ReadEvents(first);
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[0].file_version(), "brain.Event:2");
  EXPECT_EQ(events[1].step(), 1);
  EXPECT_EQ(events[1].wall_time(), 1'700'000'001.5);
  EXPECT_EQ(events[1].summary().value(0).tag(), "train/loss");
  EXPECT_EQ(events[1].summary().value(0).simple_value(), 1.0f);
  EXPECT_EQ(events[1].summary().value(1).tag(), "phase_seconds/forward");
  EXPECT_TRUE(std::isnan(events[2].summary().value(0).simple_value()));
  LL_ASSERT_OK_AND_ASSIGN(const std::string second, ReadFile(folder + "/" + files[1]));
  ASSERT_THAT(ReadEvents(second), SizeIs(3));
  EXPECT_EQ(ReadEvents(second)[2].summary().value(0).tag(), "eval/perplexity");
}

TEST(TensorBoardTrackerTest, AFolderThatCannotBeMadeIsAnError) {
  TensorBoardTracker tracker("/proc/none");
  TrackerEvent event = Event(TrackerEvent::Kind::kStep, 1, 1);
  event.values = {{"loss", 1}};
  EXPECT_FALSE(tracker.Take({event}).ok());
}

}  // namespace
}  // namespace ll
