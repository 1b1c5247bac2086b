// Reading the trainer's events (design §5, "Trainer events"): one JSON object a line.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace ll {

// A `step` event.
struct StepFacts {
  int64_t epoch = 0;
  int64_t step = 0;
  int64_t max_steps = 0;  // 0: not told
  double loss = 0, grad_norm = 0, learning_rate = 0;
  int64_t tokens = 0;
  double step_seconds = 0, tokens_per_second = 0;
  std::optional<double> mfu;
  int64_t peak_bytes = 0;
  absl::Time time;
  // The highest of the ranks' straggler scores (worker/trainer/guard/straggler.h); absent with one.
  std::optional<double> straggler_score;
  std::vector<std::pair<std::string, double>> phases;  // seconds by phase
};

// nullopt: the line is not a JSON object (a broken or cut line), or one that base/json.h refuses.
std::optional<nlohmann::json> ParseEvent(absl::string_view line);

// nullopt: not a step event, or one without a step number. Fields of another type, and numbers that
// no step can have, read as absent.
std::optional<StepFacts> ParseStep(const nlohmann::json& event, int64_t epoch);

// What an `eval` event, or the `done` event of an eval job, tells.
struct EvalFacts {
  std::optional<double> perplexity;
  std::optional<double> effective_context_length;  // tokens
};
EvalFacts ParseEval(const nlohmann::json& event);

// A `guard` event: a step that did not count, or should not have (worker/trainer/guard).
struct GuardFacts {
  std::string kind, action;  // "nan", "loss_spike"; "warn", "skip", "rollback", "stop"
  std::string message;       // a sentence
};
std::optional<GuardFacts> ParseGuard(const nlohmann::json& event);

// What is out of the ordinary in a running job, for people.
class JobNotes {
 public:
  // Takes a `guard`, a `policy` or a `straggler` event of rank 0; others change nothing. Stragglers
  // of an older attempt are forgotten.
  void Take(const nlohmann::json& event, int64_t epoch);
  // Sentences joined by "; ", or nothing; some kilobytes at most.
  std::string Text() const;

 private:
  int64_t epoch_ = 0;
  std::string guard_, policy_;                 // the newest
  std::map<int64_t, std::string> stragglers_;  // by rank
};

// Calls f(line) for each whole line; returns the bytes they take, newlines included.
size_t ForEachLine(absl::string_view bytes, const std::function<void(absl::string_view)>& f);

}  // namespace ll
