#include "worker/agent/orders.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"

namespace ll {
namespace {

StartDecision Refuse(v1::FailureClass failure_class, std::string reason) {
  return {StartDecision::kRefuse, std::move(reason), failure_class, {}};
}

// An order that no correct coordinator sends is refused rather than half obeyed.
std::string WhyMalformed(const v1::StartGang& order) {
  std::set<int> ranks, slots;
  for (const v1::RankPlace& place : order.ranks()) {
    if (place.rank() < 0 || place.rank() >= order.world_size()) {
      return absl::StrCat("rank ", place.rank(), " is not in a gang of ", order.world_size());
    }
    if (!ranks.insert(place.rank()).second)
      return absl::StrCat("rank ", place.rank(), " is named twice");
    if (!slots.insert(place.slot()).second)
      return absl::StrCat("slot ", place.slot(), " is named twice");
  }
  return ranks.empty() ? "the order names no rank for this worker" : "";
}

// A job id becomes a folder name.
bool IsSafeName(const std::string& job_id) {
  return !job_id.empty() && job_id.size() <= 128 && job_id[0] != '.' &&
         std::all_of(job_id.begin(), job_id.end(), [](char c) {
           return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.';
         });
}

}  // namespace

absl::Status Orders::AcceptTerm(int64_t term) {
  if (term < highest_term_) {
    return FieldStatus(
        absl::StatusCode::kFailedPrecondition, "term",
        absl::StrCat(
            "the coordinator's term ", term, " is lower than ", highest_term_,
            ", which this worker has obeyed: an older coordinator is still running, or the "
            "coordinator's data directory was replaced"),
        "in the latter case put it back with ll-coordinator restore (or remove agent.json in this "
        "worker's work directory)");
  }
  highest_term_ = term;
  return absl::OkStatus();
}

StartDecision Orders::DecideStart(const v1::StartGang& order) const {
  const GangKey key{order.job_id(), order.epoch()};
  if (!IsSafeName(key.job_id) || key.epoch < 1) {
    // Not even an answer is kept: it would be kept under that name.
    return {StartDecision::kStale,
            absl::StrCat("'", key.job_id, "' epoch ", key.epoch, " is not a job's attempt")};
  }
  if (Holds(key)) return {StartDecision::kHeld};
  if (std::string why = WhyMalformed(order); !why.empty()) return Refuse(v1::INFRASTRUCTURE, why);

  StartDecision decision;
  for (const auto& [other, busy] : held_) {
    if (other.job_id != key.job_id) continue;
    if (other.epoch > key.epoch) {
      return {StartDecision::kStale,
              absl::StrCat("epoch ", other.epoch, " of the job has been started here")};
    }
    if (busy.empty()) continue;
    decision.kind = StartDecision::kWait;
    decision.reason = absl::StrCat("epoch ", other.epoch, " of the job still runs here");
    decision.supersedes.push_back(other);
  }
  for (const v1::RankPlace& place : order.ranks()) {
    if (std::find(slots_.begin(), slots_.end(), place.slot()) == slots_.end()) {
      return Refuse(v1::CAPACITY, absl::StrCat("this worker has no slot ", place.slot()));
    }
    for (const auto& [other, busy] : held_) {
      if (std::find(busy.begin(), busy.end(), place.slot()) == busy.end()) continue;
      decision.kind = StartDecision::kWait;
      decision.reason = absl::StrCat("slot ", place.slot(), " is still used by ", other.ToString());
    }
  }
  return decision;
}

void Orders::Hold(const GangKey& gang, std::vector<int> slots) { held_[gang] = std::move(slots); }

void Orders::FreeSlot(const GangKey& gang, int slot) {
  const auto it = held_.find(gang);
  if (it == held_.end()) return;
  it->second.erase(std::remove(it->second.begin(), it->second.end(), slot), it->second.end());
}

}  // namespace ll
