#include "model/spec/gate.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

using Json = nlohmann::ordered_json;

struct Metric {
  const char* name;
  const char* task;
  bool share;  // from 0 to 1
};
constexpr Metric kMetrics[] = {{"ppl", "perplexity", false},
                               {"passkey", "passkey", true},
                               {"passkey_min", "passkey", true},
                               {"effective_context", "passkey", false},
                               {"topics", "topics", true}};

const Metric* FindMetric(absl::string_view name) {
  for (const Metric& metric : kMetrics) {
    if (name == metric.name) return &metric;
  }
  return nullptr;
}

std::string MetricNames(absl::string_view task = "") {
  std::vector<std::string> names;
  for (const Metric& metric : kMetrics) {
    if (task.empty() || task == metric.task) names.push_back(metric.name);
  }
  return absl::StrJoin(names, ", ");
}

std::string Quoted(absl::string_view text) {
  return absl::StrCat("\"", absl::CEscape(text.substr(0, 80)), "\"");
}

absl::StatusOr<Gate> ParseGate(absl::string_view text) {
  const size_t at = text.find_first_of("<>");
  if (at == absl::string_view::npos) {
    return MakeFieldError({"gate", "conditions such as passkey>=0.9, separated by commas",
                           Quoted(text), absl::StrCat("metrics: ", MetricNames())});
  }
  Gate gate;
  gate.metric = std::string(absl::StripAsciiWhitespace(text.substr(0, at)));
  if (gate.metric == "perplexity") gate.metric = "ppl";
  const bool equal = text.substr(at + 1, 1) == "=";
  gate.op = std::string(text.substr(at, equal ? 2 : 1));
  const Metric* metric = FindMetric(gate.metric);
  if (metric == nullptr) {
    return MakeFieldError({"gate", absl::StrCat("a metric: ", MetricNames()), Quoted(gate.metric)});
  }
  const absl::string_view number = absl::StripAsciiWhitespace(text.substr(at + gate.op.size()));
  if (!absl::SimpleAtod(number, &gate.limit) || !std::isfinite(gate.limit)) {
    return MakeFieldError(
        {"gate", absl::StrCat("a number behind ", gate.metric, gate.op), Quoted(number)});
  }
  if (metric->share && !(gate.limit >= 0 && gate.limit <= 1)) {
    return MakeFieldError(
        {"gate", absl::StrCat("a share from 0 to 1 for ", gate.metric), absl::StrCat(gate.limit)});
  }
  return gate;
}

// The number under `key`; NaN where there is none.
double NumberAt(const Json& object, const char* key) {
  const auto it = object.is_object() ? object.find(key) : object.end();
  return it != object.end() && it->is_number() ? it->get<double>() : std::nan("");
}

// The entry of the list under `key` with the lowest accuracy; null where there is none.
const Json* Lowest(const Json& result, const char* key) {
  const Json* lowest = nullptr;
  const auto list = result.find(key);
  if (list == result.end() || !list->is_array()) return nullptr;
  for (const Json& entry : *list) {
    if (lowest == nullptr || NumberAt(entry, "accuracy") < NumberAt(*lowest, "accuracy"))
      lowest = &entry;
  }
  return lowest;
}

void Measure(const Json& result, GateOutcome& outcome) {
  const std::string& metric = outcome.gate.metric;
  if (metric == "ppl") {
    outcome.value = NumberAt(result, "perplexity");
  } else if (metric == "effective_context") {
    outcome.value = NumberAt(result, "effective_context_length");
  } else if (metric == "passkey_min") {
    const Json* cell = Lowest(result, result.contains("grid") ? "grid" : "by_length");
    outcome.value = cell == nullptr ? std::nan("") : NumberAt(*cell, "accuracy");
    if (cell == nullptr) return;
    outcome.where = absl::StrCat(" at ", NumberAt(*cell, "length"));
    if (cell->contains("depth"))
      absl::StrAppend(&outcome.where, ", depth ", NumberAt(*cell, "depth"));
  } else {
    outcome.value = NumberAt(result, "accuracy");
    const Json* lowest = Lowest(result, "by_length");
    if (lowest == nullptr) return;
    const double length = NumberAt(*lowest, "length");
    outcome.where = result["by_length"].size() == 1
                        ? absl::StrCat(" at ", length)
                        : absl::StrCat(", lowest ", NumberAt(*lowest, "accuracy"), " at ", length);
  }
}

bool Holds(const GateOutcome& outcome) {
  const double value = outcome.value, limit = outcome.gate.limit;
  if (outcome.gate.op == ">=") return value >= limit;
  if (outcome.gate.op == "<=") return value <= limit;
  return outcome.gate.op == ">" ? value > limit : value < limit;
}

}  // namespace

absl::StatusOr<std::vector<Gate>> ParseGates(absl::string_view text) {
  std::vector<Gate> gates;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    LL_ASSIGN_OR_RETURN(Gate gate, ParseGate(absl::StripAsciiWhitespace(part)));
    gates.push_back(std::move(gate));
  }
  return gates;
}

std::string GateText(const Gate& gate) {
  return absl::StrCat(gate.metric, " ", gate.op, " ", gate.limit);
}

std::string GateKey(const std::vector<Gate>& gates) {
  return absl::StrJoin(gates, ",", [](std::string* out, const Gate& gate) {
    absl::StrAppend(out, gate.metric, gate.op, gate.limit);
  });
}

std::string TaskOfGate(const Gate& gate) {
  const Metric* metric = FindMetric(gate.metric);
  return metric == nullptr ? "" : metric->task;
}

absl::Status CheckGatesOfTask(const std::vector<Gate>& gates, absl::string_view eval_task) {
  for (const Gate& gate : gates) {
    if (TaskOfGate(gate) == eval_task) continue;
    return MakeFieldError(
        {"gate", absl::StrCat("what eval_task ", eval_task, " measures: ", MetricNames(eval_task)),
         gate.metric, absl::StrCat("eval_task: ", TaskOfGate(gate), " measures it")});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<GateOutcome>> HoldGates(const std::vector<Gate>& gates,
                                                   const Json& result) {
  std::vector<GateOutcome> outcomes;
  for (const Gate& gate : gates) {
    GateOutcome outcome{gate};
    Measure(result, outcome);
    if (std::isnan(outcome.value)) {
      return absl::InternalError(
          absl::StrCat("gate: the evaluation did not measure ", gate.metric));
    }
    outcome.holds = Holds(outcome);
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

Json GatesToJson(const std::vector<GateOutcome>& outcomes) {
  Json list = Json::array();
  for (const GateOutcome& outcome : outcomes) {
    list.push_back(
        {{"gate", GateText(outcome.gate)}, {"value", outcome.value}, {"holds", outcome.holds}});
  }
  return list;
}

absl::Status GateStatus(const std::vector<GateOutcome>& outcomes) {
  std::vector<std::string> failing;
  for (const GateOutcome& outcome : outcomes) {
    if (outcome.holds) continue;
    failing.push_back(
        absl::StrCat(GateText(outcome.gate), " is not met: ", outcome.value, outcome.where));
  }
  if (failing.empty()) return absl::OkStatus();
  return FieldStatus(absl::StatusCode::kFailedPrecondition, "gate", absl::StrJoin(failing, "; "));
}

}  // namespace ll
