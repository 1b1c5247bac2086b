// Gates: conditions on what an evaluation measured (spec key `gate`), such as
// "passkey>=0.9,ppl<=12.5". Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace ll {

struct Gate {
  // ppl: perplexity. passkey, topics: share of right answers over all prompts. passkey_min: that of
  // the worst cell of a grid, or length. effective_context: tokens (docs/evaluation.md).
  std::string metric;
  std::string op;  // >=, <=, > or <
  double limit = 0;
  bool operator==(const Gate&) const = default;
};

// One gate beside what was measured.
struct GateOutcome {
  Gate gate;
  double value = 0;
  std::string where;  // what the value is of, for people: " at 16384"; may be empty
  bool holds = false;
};

// Conditions separated by commas, at least one; blanks do not count; `perplexity` is ppl. Errors
// (InvalidArgument, field `gate`): syntax, unknown metric, a share beyond 0 … 1.
absl::StatusOr<std::vector<Gate>> ParseGates(absl::string_view text);

// "passkey >= 0.9".
std::string GateText(const Gate& gate);
// As the key is written: "passkey>=0.9,ppl<=12.5".
std::string GateKey(const std::vector<Gate>& gates);

// The eval_task that measures the gate's metric: perplexity, passkey or topics.
std::string TaskOfGate(const Gate& gate);

// Refuses a gate whose metric the task does not measure (field `gate`).
absl::Status CheckGatesOfTask(const std::vector<Gate>& gates, absl::string_view eval_task);

// Holds each gate against the result of an evaluation (ll-trainer's JSON). Internal where the
// result lacks the metric: the gates were not checked against the task.
absl::StatusOr<std::vector<GateOutcome>> HoldGates(const std::vector<Gate>& gates,
                                                   const nlohmann::ordered_json& result);

// For the result: [{"gate", "value", "holds"}, …].
nlohmann::ordered_json GatesToJson(const std::vector<GateOutcome>& outcomes);

// OK where every gate holds; else FailedPrecondition, "gate: passkey >= 0.9 is not met: 0.73 at
// 16384", every failing one named.
absl::Status GateStatus(const std::vector<GateOutcome>& outcomes);

}  // namespace ll
