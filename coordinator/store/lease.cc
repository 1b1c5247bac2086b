#include "coordinator/store/lease.h"

#include <algorithm>

namespace ll {
namespace {
// A lease that is about to end is asked for just after, not a whole interval later.
constexpr absl::Duration kAfterEnd = absl::Milliseconds(10);
}  // namespace

void Lease::OnAnswer(const LeaseAnswer& answer, absl::Duration asked, absl::Duration now) {
  if (answer.mine) {
    // Lapsed meanwhile: somebody may have led in between.
    if (!Leads(now)) ++generation_;
    until_ = asked + options_.length * (1 - options_.margin);
    next_ = asked + options_.renew;
    leader_.clear();
    return;
  }
  until_ = -absl::InfiniteDuration();
  leader_ = answer.address;
  const absl::Duration end = std::max(answer.ends_in, absl::ZeroDuration()) + kAfterEnd;
  next_ = now + std::min(options_.poll, end);
}

void Lease::StepAside(absl::Duration now, absl::Duration pause) {
  until_ = -absl::InfiniteDuration();
  next_ = now + pause;
}

}  // namespace ll
