#include "coordinator/core/retry.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using Kind = AttemptOutcome::Kind;

RankExit Code(int code, FailureClass failure_class = FailureClass::kNone, bool ordered = false) {
  RankExit exit;
  exit.code = code;
  exit.failure_class = failure_class;
  exit.ordered = ordered;
  return exit;
}
RankExit Killed(bool ordered) {
  RankExit exit;
  exit.signal = 9;
  exit.ordered = ordered;
  exit.failure_class = FailureClass::kInfrastructure;
  return exit;
}
RankExit Lost() {
  RankExit exit;
  exit.lost = true;
  exit.failure_class = FailureClass::kInfrastructure;
  return exit;
}

// By the word of an agent that was restarted.
RankExit LostByReport() {
  RankExit exit = Killed(false);
  exit.lost = exit.reported = true;
  return exit;
}

Attempt Over(std::vector<RankExit> exits) {
  Attempt attempt;
  for (RankExit& exit : exits)
    attempt.ranks.push_back({WorkerId("w"), 0, "", RankPhase::kExited, exit});
  return attempt;
}

TEST(Judge, TakesTheMostTellingCause) {
  const RankExit infra = Code(30, FailureClass::kInfrastructure),
                 oom = Code(40, FailureClass::kOutOfMemory),
                 nan = Code(50, FailureClass::kNotANumber), user = Code(20, FailureClass::kUser),
                 capacity = Code(31, FailureClass::kCapacity);
  struct Row {
    std::vector<RankExit> exits;
    Kind kind;
    FailureClass failure_class;
  };
  const Row rows[] = {
      {{Code(0), Code(0)}, Kind::kSucceeded, FailureClass::kNone},
      {{Code(10), Code(10)}, Kind::kCheckpointed, FailureClass::kNone},
      {{Code(0), Code(10)}, Kind::kCheckpointed, FailureClass::kNone},
      {{Code(10), Killed(true)}, Kind::kStopped, FailureClass::kNone},
      {{infra, oom}, Kind::kFailed, FailureClass::kOutOfMemory},
      {{infra, nan, capacity}, Kind::kFailed, FailureClass::kNotANumber},
      {{oom, user}, Kind::kFailed, FailureClass::kUser},
      {{infra, capacity}, Kind::kFailed, FailureClass::kCapacity},
      {{Code(0), Killed(false)}, Kind::kFailed, FailureClass::kInfrastructure},
      {{Code(0), Lost()}, Kind::kFailed, FailureClass::kInfrastructure},
      // A telling class counts even where the end had been ordered meanwhile.
      {{infra, Code(40, FailureClass::kOutOfMemory, true)},
       Kind::kFailed,
       FailureClass::kOutOfMemory},
  };
  for (const Row& row : rows) {
    const AttemptOutcome outcome = Judge(Over(row.exits));
    EXPECT_EQ(outcome.kind, row.kind);
    EXPECT_EQ(outcome.failure.failure_class, row.failure_class);
  }
}

TEST(Judge, NamesTheRankThatWasNotOrdered) {
  const AttemptOutcome outcome = Judge(Over({Lost(), Code(30, FailureClass::kInfrastructure)}));
  EXPECT_THAT(outcome.failure.message, testing::StartsWith("rank 1 on w ended with exit code 30"));
}

RankExit Names(int rank) {
  RankExit exit = Code(30, FailureClass::kInfrastructure);
  exit.caused_by = rank;
  return exit;
}

TEST(Judge, BelievesARankThatNamesAnother) {
  const AttemptOutcome died = Judge(Over({Names(1), Killed(false), Names(1)}));
  EXPECT_THAT(died.failure.message, testing::StartsWith("rank 1 on w was ended by signal 9"));
  const AttemptOutcome cut_off = Judge(Over({Lost(), Names(0)}));
  EXPECT_THAT(cut_off.failure.message, testing::StartsWith("rank 1 on w ended with exit code 30"));
  // Its peers fail after it, and nothing more is to come of it.
  const AttemptOutcome restarted = Judge(Over({Names(1), LostByReport()}));
  EXPECT_THAT(restarted.failure.message, testing::StartsWith("rank 1 on w was lost"));
  EXPECT_FALSE(restarted.concluded);
  EXPECT_TRUE(cut_off.concluded);
}

TEST(Suspect, IsTheRankThatTheOthersFailedAfter) {
  const RankExit infra = Code(30, FailureClass::kInfrastructure);
  struct Row {
    std::vector<RankExit> exits;
    std::optional<int> suspect;
  };
  const Row rows[] = {
      {{infra}, 0},
      {{Killed(true), infra, infra}, 1},
      {{Names(2), Names(2), Killed(false)}, 2},
      {{Names(2), Names(2), Killed(true)}, 2},     // a frozen one, ended by order
      {{Names(1), Lost()}, std::nullopt},          // its agent is gone as well
      {{Names(1), LostByReport()}, std::nullopt},  // and its next one says so
      {{Names(1), Names(0)}, std::nullopt},        // the network between them
      {{Names(1), Code(0)}, std::nullopt},
      {{Names(7), Code(0)}, std::nullopt},
      {{Killed(true), Killed(true)}, std::nullopt},
  };
  for (const Row& row : rows) EXPECT_EQ(Suspect(Over(row.exits)), row.suspect);
}

TEST(Judge, ADeadlineIsTheCauseOfTheKillsItOrdered) {
  Attempt attempt = Over({Killed(true), Killed(true)});
  attempt.forced = Failure{FailureClass::kInfrastructure, "too late"};
  EXPECT_EQ(Judge(attempt).failure.message, "too late");
}

TEST(DecideRetry, OnlyWhatAnotherAttemptMayMend) {
  const auto decide = [](FailureClass failure_class, int retries) {
    AttemptOutcome outcome;
    outcome.kind = Kind::kFailed;
    outcome.failure = {failure_class, "broken"};
    return DecideRetry(outcome, retries, 3, 0, RetryOptions());
  };
  EXPECT_TRUE(decide(FailureClass::kInfrastructure, 2).retry);
  EXPECT_TRUE(decide(FailureClass::kInfrastructure, 2).charge);
  EXPECT_FALSE(decide(FailureClass::kInfrastructure, 3).retry);
  EXPECT_TRUE(decide(FailureClass::kCapacity, 0).retry);
  EXPECT_FALSE(decide(FailureClass::kUser, 0).retry);
  EXPECT_FALSE(decide(FailureClass::kOutOfMemory, 0).retry);
  EXPECT_FALSE(decide(FailureClass::kNotANumber, 0).retry);
}

TEST(DecideRetry, ADrainCostsNothing) {
  AttemptOutcome outcome;
  outcome.kind = Kind::kCheckpointed;
  const RetryDecision decision = DecideRetry(outcome, 3, 3, 0, RetryOptions());
  EXPECT_TRUE(decision.retry);
  EXPECT_FALSE(decision.charge);
  EXPECT_EQ(decision.backoff, absl::Seconds(1));
}

TEST(DecideRetry, AnAttemptThatMadeProgressIsFollowedAtOnce) {
  AttemptOutcome outcome;
  outcome.kind = Kind::kFailed;
  outcome.failure = {FailureClass::kInfrastructure, "broken"};
  EXPECT_EQ(DecideRetry(outcome, 0, 3, 0, RetryOptions()).reason, "broken (retry 1 of 3 at once)");
  EXPECT_EQ(DecideRetry(outcome, 1, 3, 2, RetryOptions()).reason, "broken (retry 2 of 3 in 2.0s)");
  outcome.concluded = true;
  EXPECT_EQ(DecideRetry(outcome, 0, 3, 0, RetryOptions()).reason, "broken (retry 1 of 3 in 1.0s)");
}

TEST(Backoff, DoublesUpToTheCap) {
  const RetryOptions options;
  EXPECT_EQ(Backoff(0, options), absl::ZeroDuration());
  EXPECT_EQ(Backoff(1, options), absl::Seconds(1));
  EXPECT_EQ(Backoff(4, options), absl::Seconds(8));
  EXPECT_EQ(Backoff(7, options), absl::Seconds(60));
  EXPECT_EQ(Backoff(1'000'000, options), absl::Seconds(60));
}

}  // namespace
}  // namespace ll
