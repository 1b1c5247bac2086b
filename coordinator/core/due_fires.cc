#include "coordinator/core/due_fires.h"

#include <algorithm>
#include <deque>

#include "absl/strings/str_cat.h"
#include "base/format.h"

namespace ll {
namespace {

// The newest fires in [from, now], at most kMaxMadeUpFor of them, found by looking back further and
// further.
std::deque<absl::Time> Newest(const Cron& rule, const absl::TimeZone& zone, absl::Time from,
                              absl::Time now) {
  for (absl::Duration window = absl::Hours(1);; window *= 4) {
    const absl::Time begin = std::max(from, now - window);
    std::deque<absl::Time> found;
    for (absl::Time at = rule.Next(begin - absl::Nanoseconds(1), zone); at <= now;
         at = rule.Next(at, zone)) {
      found.push_back(at);
      if (found.size() > kMaxMadeUpFor) found.pop_front();
    }
    if (found.size() == kMaxMadeUpFor || begin == from) return found;
  }
}

void LeaveOut(absl::Time at, const std::string& reason, std::vector<LeftOut>& out) {
  if (out.empty() || out.back().reason != reason) out.push_back({at, at, 0, false, reason});
  out.back().last = at;
  ++out.back().fires;
}

}  // namespace

DueFires DecideDue(const Cron& rule, const absl::TimeZone& zone, absl::Time next_fire,
                   absl::Time now, MissedPolicy missed, absl::Duration start_within) {
  DueFires out;
  out.next = rule.Next(now, zone);
  const std::deque<absl::Time> newest = Newest(rule, zone, next_fire, now);
  const std::string too_late =
      absl::StrCat("missed by more than start_within (", HumanDuration(start_within), ")");
  const std::string missed_reason =
      missed == MissedPolicy::kSkip   ? "missed: the coordinator was away"
      : missed == MissedPolicy::kLast ? "missed: a newer fire stands for it"
                                      : "missed: too many to make up for";
  const auto reason_at = [&](absl::Time at) {
    return now - at > start_within ? too_late : missed_reason;
  };
  // Those before the newest ones.
  int64_t counted = 0;
  for (absl::Time at = rule.Next(next_fire - absl::Nanoseconds(1), zone);
       !newest.empty() && at < newest.front(); at = rule.Next(at, zone)) {
    if (counted++ < kMaxCounted) {
      LeaveOut(at, reason_at(at), out.left_out);
      continue;
    }
    out.left_out.back().more = true;
    out.left_out.back().last = newest.front() - absl::Minutes(1);
    break;
  }
  for (size_t i = 0; i < newest.size(); ++i) {
    const absl::Time at = newest[i];
    const bool last = i + 1 == newest.size();
    const bool wanted = missed == MissedPolicy::kAll || (last && missed == MissedPolicy::kLast) ||
                        (last && now - at < kFireOnTime);
    if (wanted && now - at <= start_within) {
      out.fires.push_back(at);
    } else {
      LeaveOut(at, reason_at(at), out.left_out);
    }
  }
  return out;
}

}  // namespace ll
