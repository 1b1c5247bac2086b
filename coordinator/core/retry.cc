#include "coordinator/core/retry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/format.h"

namespace ll {
namespace {

// Smaller is more telling.
int Weight(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kUser:
      return 0;
    case FailureClass::kOutOfMemory:
      return 1;
    case FailureClass::kNotANumber:
      return 2;
    case FailureClass::kCapacity:
      return 3;
    case FailureClass::kInfrastructure:
    case FailureClass::kNone:
      return 4;
  }
  return 4;
}

// A death that our stop order explains: by signal, or with a generic class after the order.
bool ExplainedByOrder(const RankExit& exit) {
  return exit.ordered && Weight(exit.failure_class) == 4;
}

// By nobody's word: what its agent tells of it may still come.
bool Concluded(const RankExit& exit) { return exit.lost && !exit.reported; }

// Among equals the likelier cause is smaller: a rank that names another one has failed after it,
// and one whose end was concluded or came after a stop order says least.
int Doubt(const RankExit& exit) {
  return exit.ordered || Concluded(exit) ? 2 : exit.caused_by >= 0;
}

}  // namespace

bool EndedWell(const RankExit& exit) {
  return !exit.lost && exit.signal == 0 && exit.code == kExitDone;
}

bool EndedCheckpointed(const RankExit& exit) {
  return !exit.lost && exit.signal == 0 && exit.code == kExitCheckpointed;
}

std::string DescribeEnd(int index, const Rank& rank) {
  const RankExit& exit = rank.exit;
  std::string text = absl::StrCat("rank ", index, " on ", rank.worker.value());
  if (exit.lost) {
    absl::StrAppend(&text, " was lost");
  } else if (exit.signal != 0) {
    absl::StrAppend(&text, " was ended by signal ", exit.signal);
  } else if (exit.code == kExitNotStarted) {
    absl::StrAppend(&text, " could not be started");
  } else {
    absl::StrAppend(&text, " ended with exit code ", exit.code);
  }
  if (!exit.message.empty()) absl::StrAppend(&text, ": ", exit.message);
  return text;
}

AttemptOutcome Judge(const Attempt& attempt) {
  AttemptOutcome outcome;
  bool checkpointed = false, stopped = false, failed = false;
  int best = 100;
  if (attempt.forced.has_value()) {
    failed = true;
    best = 3 * Weight(attempt.forced->failure_class);
    outcome.failure = *attempt.forced;
  }
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    const Rank& rank = attempt.ranks[i];
    outcome.concluded |= Concluded(rank.exit);
    checkpointed |= EndedCheckpointed(rank.exit);
    if (EndedWell(rank.exit) || EndedCheckpointed(rank.exit)) continue;
    if (ExplainedByOrder(rank.exit)) {
      stopped = true;
      continue;
    }
    failed = true;
    const int weight = 3 * Weight(rank.exit.failure_class) + Doubt(rank.exit);
    if (weight >= best) continue;
    best = weight;
    outcome.failure.failure_class = rank.exit.failure_class == FailureClass::kNone
                                        ? FailureClass::kInfrastructure
                                        : rank.exit.failure_class;
    outcome.failure.message = DescribeEnd(static_cast<int>(i), rank);
  }
  outcome.kind = failed         ? AttemptOutcome::Kind::kFailed
                 : stopped      ? AttemptOutcome::Kind::kStopped
                 : checkpointed ? AttemptOutcome::Kind::kCheckpointed
                                : AttemptOutcome::Kind::kSucceeded;
  return outcome;
}

std::optional<int> Suspect(const Attempt& attempt) {
  const auto infrastructure = [](const RankExit& exit) {
    return !exit.lost && exit.failure_class == FailureClass::kInfrastructure;
  };
  const int ranks = static_cast<int>(attempt.ranks.size());
  for (int i = 0; i < ranks; ++i) {
    const RankExit& exit = attempt.ranks[i].exit;
    if (infrastructure(exit) && Doubt(exit) == 0) return i;
  }
  for (const Rank& witness : attempt.ranks) {
    const int named = witness.exit.caused_by;
    if (named < 0 || named >= ranks) continue;
    const RankExit& exit = attempt.ranks[named].exit;
    if (infrastructure(exit) && exit.caused_by < 0) return named;
  }
  return std::nullopt;
}

absl::Duration Backoff(int stuck_attempts, const RetryOptions& options) {
  if (stuck_attempts <= 0) return absl::ZeroDuration();
  absl::Duration backoff = options.backoff_base;
  for (int i = 1; i < stuck_attempts && backoff < options.backoff_cap; ++i) backoff *= 2;
  return std::min(backoff, options.backoff_cap);
}

RetryDecision DecideRetry(const AttemptOutcome& outcome, int retries, int max_retries,
                          int stuck_attempts, const RetryOptions& options) {
  RetryDecision decision;
  const bool failed = outcome.kind == AttemptOutcome::Kind::kFailed;
  decision.backoff =
      Backoff(std::max(stuck_attempts, failed && !outcome.concluded ? 0 : 1), options);
  const std::string when = decision.backoff == absl::ZeroDuration()
                               ? "at once"
                               : absl::StrCat("in ", HumanDuration(decision.backoff));
  if (!failed) {
    decision.retry = true;
    decision.reason = absl::StrCat(outcome.kind == AttemptOutcome::Kind::kCheckpointed
                                       ? "an agent stopped the ranks after a checkpoint"
                                       : "an agent stopped the ranks",
                                   "; goes on ", when);
    return decision;
  }
  const Failure& failure = outcome.failure;
  if (failure.failure_class != FailureClass::kInfrastructure &&
      failure.failure_class != FailureClass::kCapacity) {
    decision.reason =
        absl::StrCat(failure.message, " (", std::string(FailureClassName(failure.failure_class)),
                     ": not retried)");
    return decision;
  }
  if (retries >= max_retries) {
    decision.reason =
        absl::StrCat(failure.message, " (retries used up: ", retries, " of ", max_retries, ")");
    return decision;
  }
  decision.retry = true;
  decision.charge = true;
  decision.reason =
      absl::StrCat(failure.message, " (retry ", retries + 1, " of ", max_retries, " ", when, ")");
  return decision;
}

}  // namespace ll
