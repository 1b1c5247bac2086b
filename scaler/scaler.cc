#include "scaler/scaler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr absl::Duration kLongestWait = absl::Minutes(1);
// Rounds without an end for so long: the process is stuck, or one of the two peers is away.
constexpr int64_t kStuckAfterMs = 600'000, kUnreadyAfterMs = 180'000;
constexpr int kMostConflicts = 5;  // in a row without a wait

absl::Status OfCoordinator(const absl::Status& status) {
  const std::string message = absl::StrCat("the coordinator: ", status.message());
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return FieldStatus(status.code(), "coordinator", message,
                         "does it run, and is --coordinator its address?");
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
      return FieldStatus(
          status.code(), "coordinator", message,
          "is the token of --token-file still good, with the scopes read and admin?");
    default:
      return Annotate(status, "the coordinator");
  }
}

}  // namespace

Scaler::Scaler(const ScalingLimits& limits, StatefulSetAddress stateful_set,
               ScalingCoordinator coordinator, Clock& clock, HttpTransport& http)
    : policy_(limits),
      scale_(std::move(stateful_set), http),
      coordinator_(std::move(coordinator)),
      clock_(clock),
      began_ms_(NowMs()),
      succeeded_ms_(-kUnreadyAfterMs),
      replicas_(GaugeOf(registry_, "ll_scaler_replicas",
                        "Workers that the StatefulSet is asked "
                        "for.")),
      wanted_(GaugeOf(registry_, "ll_scaler_wanted_replicas",
                      "Workers that running and waiting gangs want, within the limits.")),
      pending_(GaugeOf(registry_, "ll_scaler_pending_slots",
                       "Slots that waiting gangs want and may have by their queue's limits.")),
      left_alone_(GaugeOf(registry_, "ll_scaler_left_alone",
                          "1 while a number of replicas that somebody else has set is left "
                          "alone.")),
      last_success_(GaugeOf(registry_, "ll_scaler_last_round_time_seconds",
                            "When queue and StatefulSet were last looked at with success, Unix "
                            "time; 0 before the first time.")),
      changes_(CounterOf(registry_, "ll_scaler_changes_total",
                         "Changes of the StatefulSet's replicas, by direction (up, down).")),
      failed_(CounterOf(registry_, "ll_scaler_failures_total",
                        "Rounds that failed, by whose answer was missing or was a refusal "
                        "(coordinator, kubernetes).")) {
  last_success_.Add({}).Set(0);  // there from the start, for the alert
  for (const char* direction : {"up", "down"}) changes_.Add({{"direction", direction}});
  for (const char* peer : {"coordinator", "kubernetes"}) failed_.Add({{"peer", peer}});
}

bool Scaler::alive() const { return NowMs() - began_ms_ < kStuckAfterMs; }
bool Scaler::ready() const { return NowMs() - succeeded_ms_ < kUnreadyAfterMs; }

void Scaler::Tell(const ScalingPolicy::Step& step, const ScalingView& view) {
  replicas_.Add({}).Set(step.replicas.value_or(view.replicas));
  wanted_.Add({}).Set(step.wanted);
  pending_.Add({}).Set(static_cast<double>(view.pending_slots));
  left_alone_.Add({}).Set(step.left_alone ? 1 : 0);
  if (step.reason == said_ && !step.replicas) return;
  said_ = step.reason;
  LL_LOG(kInfo) << step.reason << "; replicas " << view.replicas
                << (step.replicas ? absl::StrCat(" -> ", *step.replicas) : " stay");
}

absl::Status Scaler::Act(const ScalingPolicy::Step& step) {
  for (const int ordinal : step.uncordon) LL_RETURN_IF_ERROR(coordinator_.Uncordon(ordinal));
  for (const int ordinal : step.cordon) LL_RETURN_IF_ERROR(coordinator_.Cordon(ordinal));
  return absl::OkStatus();
}

absl::Status Scaler::TryRound() {
  const auto failed = [this](const char* peer, const absl::Status& status) {
    failed_.Add({{"peer", peer}}).Increment();
    return status;
  };
  const absl::StatusOr<Scale> scale = scale_.Get();
  if (!scale.ok()) return failed("kubernetes", scale.status());
  absl::StatusOr<ScalingView> view = coordinator_.View();
  if (!view.ok()) return failed("coordinator", OfCoordinator(view.status()));
  view->replicas = scale->replicas;
  const ScalingPolicy::Step step = policy_.Decide(*view, clock_.Steady());
  Tell(step, *view);
  const absl::Status acted = Act(step);
  if (!acted.ok()) return failed("coordinator", OfCoordinator(acted));
  if (!step.replicas) return absl::OkStatus();
  policy_.Asking(*step.replicas);
  const absl::Status set = scale_.Set(*scale, *step.replicas);
  if (!set.ok()) {
    // A conflict may be with this very change, sent again over another connection.
    if (!absl::IsUnknown(set) && !absl::IsAborted(set)) policy_.Refused();
    return failed("kubernetes", set);
  }
  policy_.Set(*step.replicas);
  changes_.Add({{"direction", *step.replicas > scale->replicas ? "up" : "down"}}).Increment();
  return absl::OkStatus();
}

absl::Duration Scaler::WaitAfter(const absl::Status& status, absl::Duration poll) {
  if (status.ok()) {
    failures_ = conflicts_ = 0;
    succeeded_ms_ = NowMs();
    last_success_.Add({}).Set(static_cast<double>(absl::ToUnixSeconds(clock_.Now())));
    return poll;
  }
  if (absl::IsAborted(status) && ++conflicts_ <= kMostConflicts) return absl::ZeroDuration();
  const absl::Duration longer = poll * (1 << std::min(++failures_, 10));
  return std::max({poll, std::min(longer, kLongestWait), scale_.retry_after()});
}

absl::Duration Scaler::Round(absl::Duration poll) {
  began_ms_ = NowMs();
  const absl::Status status = TryRound();
  if (!status.ok()) {
    const std::string text(status.message());
    if (text != said_) {
      LL_LOG(kWarning) << text << "; tried again";
    }
    said_ = text;
  }
  return WaitAfter(status, poll);
}

}  // namespace ll
