#include "coordinator/runtime/checkpoint_history.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/runtime/step_event.h"

namespace ll {
namespace {

using nlohmann::json;

// Losses that wait for the checkpoint of their step; a write takes far fewer steps.
constexpr size_t kMaxWaitingLosses = 10'000;

std::string Text(const json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

std::optional<int64_t> Count(const json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_number_integer()) return std::nullopt;
  return it->get<int64_t>();
}

absl::Time TimeOf(const json& event) {
  absl::Time time = absl::InfinitePast();
  std::string error;
  absl::ParseTime(absl::RFC3339_full, Text(event, "time"), &time, &error);
  return time;
}

}  // namespace

void CheckpointHistory::Take(const json& event, int64_t epoch) {
  const std::string kind = Text(event, "event");
  if (kind == "step") {
    if (const auto step = ParseStep(event, epoch)) losses_[step->step] = step->loss;
    while (losses_.size() > kMaxWaitingLosses) losses_.erase(losses_.begin());
    return;
  }
  const auto step = Count(event, "step");
  if (!step) return;
  const json removed = event.value("removed_steps", json::array());
  for (const json& other : removed) {
    if (!other.is_number_integer()) continue;
    const auto it = by_place_.find({epoch, other.get<int64_t>()});
    if (it != by_place_.end()) it->second.removed = true;
  }
  if (kind == "checkpoint") {
    CheckpointFacts& facts = by_place_[{epoch, *step}];
    facts.epoch = epoch;
    facts.step = *step;
    facts.written = TimeOf(event);
    facts.size_bytes = Count(event, "bytes").value_or(0);
    facts.path = Text(event, "path");
    facts.manifest_sha256 = Text(event, "manifest_sha256");
    facts.removed = false;
    if (const auto loss = losses_.find(*step); loss != losses_.end()) facts.loss = loss->second;
  } else if (kind == "checkpoint_copied") {
    const auto copied = by_place_.find({epoch, *step});
    if (copied != by_place_.end()) copied->second.copy_uri = Text(event, "uri");
    const json gone = event.value("removed", json::array());  // "e0001/step-000100"
    for (const json& prefix : gone) {
      if (!prefix.is_string()) continue;
      for (auto& [place, facts] : by_place_) {
        if (absl::EndsWith(facts.copy_uri, absl::StrCat("/", prefix.get<std::string>())))
          facts.copy_uri.clear();
      }
    }
  }
}

std::vector<CheckpointFacts> CheckpointHistory::List() const {
  std::vector<CheckpointFacts> out;
  for (auto it = by_place_.rbegin(); it != by_place_.rend(); ++it) {
    if (!it->second.removed || !it->second.copy_uri.empty()) out.push_back(it->second);
  }
  return out;
}

std::string WhyKept(const KeepRules& rules, const CheckpointFacts& facts, size_t index) {
  if (index == 0) return "newest";
  if (rules.total_limit <= 0) return "all are kept";
  if (index < static_cast<size_t>(rules.total_limit))
    return absl::StrCat("one of the ", rules.total_limit, " newest");
  if (rules.keep_every > 0 && facts.step % rules.keep_every == 0)
    return absl::StrCat("multiple of ", rules.keep_every);
  return "left by an earlier attempt";
}

}  // namespace ll
