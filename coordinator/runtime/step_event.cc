#include "coordinator/runtime/step_event.h"

#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/utf8.h"

namespace ll {
namespace {

double Number(const nlohmann::json& event, const char* key) {
  auto it = event.find(key);
  return it != event.end() && it->is_number() ? it->get<double>() : 0;
}

int64_t Integer(const nlohmann::json& event, const char* key) {
  auto it = event.find(key);
  return it != event.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

// What is added up over jobs: out of bounds it would spoil the sum for all of them.
double Bounded(double value, double most) { return value >= 0 && value <= most ? value : 0; }
constexpr double kMostSeconds = 1e9;
constexpr int64_t kMostSteps = int64_t{1} << 50, kMostTokens = kMostSteps;

// Events carry RFC 3339 text; seconds since 1970 are read too.
absl::Time TimeOf(const nlohmann::json& event) {
  auto it = event.find("time");
  if (it == event.end()) return absl::UnixEpoch();
  if (it->is_number()) return absl::UnixEpoch() + absl::Seconds(it->get<double>());
  absl::Time time = absl::UnixEpoch();
  std::string error;
  if (it->is_string()) absl::ParseTime(absl::RFC3339_full, it->get<std::string>(), &time, &error);
  return time;
}

std::string Member(const nlohmann::json& event, const char* key) {
  auto it = event.find(key);
  return it != event.end() && it->is_string() ? it->get<std::string>() : "";
}

// JSON has no NaN: the trainer writes null for it.
double NumberOrNan(const nlohmann::json& event, const char* key) {
  auto it = event.find(key);
  if (it != event.end() && it->is_null()) return std::numeric_limits<double>::quiet_NaN();
  return Number(event, key);
}

constexpr absl::string_view kPhaseSuffix = "_seconds";
// Notes and phases stand in every answer about the job.
constexpr size_t kMostNoteBytes = 500, kMostStragglers = 16;
constexpr size_t kMostPhases = 64, kMostPhaseName = 64;

}  // namespace

std::optional<nlohmann::json> ParseEvent(absl::string_view line) {
  auto event = ParseJsonObject(line);
  if (!event.ok()) return std::nullopt;
  return *std::move(event);
}

std::optional<StepFacts> ParseStep(const nlohmann::json& event, int64_t epoch) {
  auto kind = event.find("event");
  if (kind == event.end() || *kind != "step") return std::nullopt;
  auto step = event.find("step");
  if (step == event.end() || !step->is_number_integer() || *step < 0 || *step > kMostSteps)
    return std::nullopt;
  StepFacts out;
  out.epoch = epoch;
  out.step = step->get<int64_t>();
  out.max_steps = Integer(event, "max_steps");
  out.loss = NumberOrNan(event, "loss");
  out.grad_norm = NumberOrNan(event, "grad_norm");
  out.learning_rate = Number(event, "learning_rate");
  const int64_t tokens = Integer(event, "tokens");
  if (tokens > 0 && tokens <= kMostTokens) out.tokens = tokens;
  out.step_seconds = Bounded(Number(event, "step_seconds"), kMostSeconds);
  out.tokens_per_second = Number(event, "tokens_per_second");
  auto mfu = event.find("mfu");
  if (mfu != event.end() && mfu->is_number()) out.mfu = mfu->get<double>();
  auto score = event.find("straggler_score");
  if (score != event.end() && score->is_number()) out.straggler_score = score->get<double>();
  out.peak_bytes = Integer(event, "peak_bytes");
  out.time = TimeOf(event);
  const auto add_phase = [&out](std::string name, double seconds) {
    if (name.size() <= kMostPhaseName && out.phases.size() < kMostPhases)
      out.phases.emplace_back(std::move(name), seconds);
  };
  for (const auto& [key, value] : event.items()) {
    const bool phase = key.size() > kPhaseSuffix.size() && key != "step_seconds" &&
                       key.compare(key.size() - kPhaseSuffix.size(), kPhaseSuffix.size(),
                                   kPhaseSuffix.data()) == 0;
    if (phase && value.is_number()) {
      add_phase(key.substr(0, key.size() - kPhaseSuffix.size()), value.get<double>());
    }
  }
  auto phases = event.find("phases");
  if (phases != event.end() && phases->is_object()) {
    for (const auto& [key, value] : phases->items()) {
      if (value.is_number()) add_phase(key, value.get<double>());
    }
  }
  return out;
}

EvalFacts ParseEval(const nlohmann::json& event) {
  auto kind = event.find("event");
  if (kind == event.end() || (*kind != "eval" && *kind != "done")) return {};
  auto result = event.find("result");
  const nlohmann::json& where = result != event.end() && result->is_object() ? *result : event;
  const auto number = [&where](const char* key) -> std::optional<double> {
    auto value = where.find(key);
    if (value == where.end() || !value->is_number()) return std::nullopt;
    return value->get<double>();
  };
  return {number("perplexity"), number("effective_context_length")};
}

std::optional<GuardFacts> ParseGuard(const nlohmann::json& event) {
  if (Member(event, "event") != "guard") return std::nullopt;
  return GuardFacts{Member(event, "kind"), Member(event, "action"), Member(event, "message")};
}

void JobNotes::Take(const nlohmann::json& event, int64_t epoch) {
  const std::string kind = Member(event, "event");
  const bool known = kind == "guard" || kind == "straggler" || kind == "policy";
  if (!known && epoch == epoch_) return;
  if (epoch < epoch_) return;
  if (epoch > epoch_) stragglers_.clear();
  epoch_ = epoch;
  std::string message(CutText(Member(event, "message"), kMostNoteBytes));
  if (kind == "guard") guard_ = message;
  if (kind == "policy") policy_ = message;
  if (kind != "straggler") return;
  const int64_t rank = Integer(event, "straggler");
  stragglers_.erase(rank);
  auto slow = event.find("slow");
  if (slow != event.end() && *slow == true && stragglers_.size() < kMostStragglers)
    stragglers_[rank] = std::move(message);
}

std::string JobNotes::Text() const {
  std::string text = guard_;
  if (!policy_.empty()) absl::StrAppend(&text, text.empty() ? "" : "; ", policy_);
  for (const auto& [rank, message] : stragglers_)
    absl::StrAppend(&text, text.empty() ? "" : "; ", message);
  return text;
}

size_t ForEachLine(absl::string_view bytes, const std::function<void(absl::string_view)>& f) {
  size_t begin = 0;
  for (size_t end; (end = bytes.find('\n', begin)) != absl::string_view::npos; begin = end + 1) {
    f(bytes.substr(begin, end - begin));
  }
  return begin;
}

}  // namespace ll
