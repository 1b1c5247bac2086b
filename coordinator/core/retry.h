// How an attempt ended, and whether there is another one. Pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/core/types.h"

namespace ll {

struct RetryOptions {
  absl::Duration backoff_base = absl::Seconds(1);
  absl::Duration backoff_cap = absl::Seconds(60);
};

// Trainer exit codes that the scheduler itself tells apart; the agent maps the others to a
// FailureClass.
inline constexpr int kExitDone = 0;
inline constexpr int kExitCheckpointed = 10;  // stopped after a checkpoint

inline constexpr int kExitNotStarted = -1;  // the agent refused to start it

// Exit code 0, by the agent's word.
bool EndedWell(const RankExit& exit);
// Stopped after a checkpoint; when nobody here ordered it, its agent is being drained.
bool EndedCheckpointed(const RankExit& exit);
// "rank 1 on w2 ended with exit code 30: connection reset".
std::string DescribeEnd(int index, const Rank& rank);

struct AttemptOutcome {
  enum class Kind {
    kSucceeded,     // every rank ended with 0
    kCheckpointed,  // ranks ended after a checkpoint, none failed
    kStopped,       // ended by our kill; nothing else went wrong
    kFailed,
  };
  Kind kind = Kind::kSucceeded;
  Failure failure;  // kFailed: the cause, with the rank it came from
  // The end of a rank was concluded, not told: of a checkpoint it may be told yet.
  bool concluded = false;
};

// Judges an attempt that is over. When one rank fails, its peers fail after it (a reset
// connection), so the most telling class is taken for the cause: user, out of memory, not a number,
// capacity, infrastructure; among equals one that nobody ordered and that names no other rank as
// the cause, then the lowest rank. A failure forced by a deadline ranks as its class.
AttemptOutcome Judge(const Attempt& attempt);

// The rank against whose host an attempt speaks that failed by infrastructure: the first that ended
// so by itself and names no other, else one that the others name (they end before a frozen one,
// which is then killed by order). A rank that was lost with its agent says nothing about its host,
// and neither do ranks that name each other: what is broken lies between them.
std::optional<int> Suspect(const Attempt& attempt);

struct RetryDecision {
  bool retry = false;
  bool charge = false;  // counts against max_retries
  absl::Duration backoff = absl::ZeroDuration();
  std::string reason;  // a sentence
};

// For outcomes other than kSucceeded of an attempt that no user stopped. Infrastructure and
// capacity failures are retried within the budget; user errors, out of memory and NaN would happen
// again, so they are not. A checkpointed stop that the coordinator did not order (an agent being
// drained) costs nothing. `stuck_attempts` counts this one if it made no new checkpoint.
// Where an end was only concluded, what its agent tells late has backoff_base to arrive: a report
// about an attempt is refused once the next one has begun. An agent that stopped its ranks by
// itself has backoff_base to leave: the job would be placed on it again.
RetryDecision DecideRetry(const AttemptOutcome& outcome, int retries, int max_retries,
                          int stuck_attempts, const RetryOptions& options);

// How long to wait after that many attempts in a row without a new checkpoint: not at all after
// none (an attempt that made progress has shown that its surroundings work), then
// base · 2^(stuck_attempts - 1), at most cap. No jitter: the coordinator starts retries itself, one
// at a time.
absl::Duration Backoff(int stuck_attempts, const RetryOptions& options);

}  // namespace ll
