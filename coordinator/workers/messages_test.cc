#include "coordinator/workers/messages.h"

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

v1::Hello Hello() {
  v1::Hello hello;
  hello.set_protocol_version(1);
  hello.set_worker("w1");
  hello.set_incarnation("i1");
  hello.set_host("host-1");
  v1::Slot* slot = hello.add_slots();
  slot->set_kind("A100-80");
  return hello;
}

v1::Report Report() {
  v1::Report report;
  report.set_job_id("job-0123456789ab");
  report.set_epoch(1);
  report.set_sequence(1);
  return report;
}

TEST(HelloTest, WhatEveryAnswerWouldRepeatIsShortAndPlain) {
  LL_EXPECT_OK(HelloFromProto(Hello(), 1).status());
  const std::string huge(1 << 20, 'x');
  for (const std::string& bad : {huge, std::string("two\nlines"), std::string("\x1b[31m")}) {
    for (const char* field : {"host", "fabric_host", "version", "http_address"}) {
      v1::Hello hello = Hello();
      hello.GetReflection()->SetString(&hello, hello.GetDescriptor()->FindFieldByName(field), bad);
      EXPECT_THAT(HelloFromProto(hello, 1).status(),
                  StatusIs(absl::StatusCode::kInvalidArgument, field));
    }
    v1::Hello hello = Hello();
    hello.mutable_slots(0)->set_kind(bad);
    EXPECT_THAT(HelloFromProto(hello, 1).status(),
                StatusIs(absl::StatusCode::kInvalidArgument, "slots"));
  }
}

// Each would hold a slot in every pass of the scheduler.
TEST(HelloTest, AgentsHoldNoMoreRanksThanTheyCouldHaveBeenGiven) {
  v1::Hello hello = Hello();
  for (int i = 0; i < 100; ++i) {
    v1::HeldGang* gang = hello.add_gangs();
    gang->set_job_id(absl::StrCat("job-", 100'000'000'000 + i));
    gang->set_epoch(1);
    for (int rank = 0; rank < 1000; ++rank) {
      v1::RankState* state = gang->add_ranks();
      state->set_rank(rank);
      state->set_slot(1000 * i + rank);
    }
  }
  EXPECT_THAT(HelloFromProto(hello, 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "ranks"));
}

// It goes into the job's record, its history and every answer about it.
TEST(ReportTest, WhatARankTellsOfItselfIsCut) {
  const std::string huge(1 << 20, 'x');
  v1::Report exit = Report();
  exit.mutable_exit()->set_message(huge);
  exit.mutable_exit()->set_failure_class(static_cast<v1::FailureClass>(77));
  LL_ASSERT_OK_AND_ASSIGN(const ReportEvent ended, ReportFromProto(exit, WorkerId("w1"), 1));
  const RankExit& told = std::get<ExitFact>(ended.fact).exit;
  EXPECT_LT(told.message.size(), 10'000u);
  EXPECT_EQ(told.failure_class, FailureClass::kNone) << "a class of a newer agent";

  v1::Report refused = Report();
  refused.mutable_refused()->set_message(huge);
  LL_ASSERT_OK_AND_ASSIGN(const ReportEvent refusal, ReportFromProto(refused, WorkerId("w1"), 1));
  EXPECT_LT(std::get<RefusedFact>(refusal.fact).failure.message.size(), 10'000u);

  v1::Report checkpoint = Report();
  checkpoint.mutable_checkpoint()->set_path("/store/e0001/checkpoints/step-000010");
  LL_EXPECT_OK(ReportFromProto(checkpoint, WorkerId("w1"), 1).status());
  checkpoint.mutable_checkpoint()->set_path(huge);
  EXPECT_THAT(ReportFromProto(checkpoint, WorkerId("w1"), 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "path"));
  v1::Report rendezvous = Report();
  rendezvous.mutable_rendezvous()->set_address(huge);
  EXPECT_THAT(ReportFromProto(rendezvous, WorkerId("w1"), 1).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "address"));
}

}  // namespace
}  // namespace ll
