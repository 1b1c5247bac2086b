#include "worker/agent/trainer_event.h"

#include <google/protobuf/util/json_util.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// Lines come from a process that reads users' files: what nests too deep is never walked.
constexpr JsonLimits kLineLimits{.max_depth = 32, .max_values = 100'000};

std::string Text(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : "";
}

int64_t Integer(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<int64_t>() : 0;
}

double Number(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number() ? it->get<double>() : std::nan("");
}

v1::FailureClass ClassNamed(const std::string& name) {
  if (name == "user") return v1::USER;
  if (name == "infrastructure") return v1::INFRASTRUCTURE;
  if (name == "capacity") return v1::CAPACITY;
  if (name == "oom") return v1::OUT_OF_MEMORY;
  if (name == "nan") return v1::NOT_A_NUMBER;
  return v1::FAILURE_CLASS_UNSPECIFIED;
}

std::string ErrorSentence(const nlohmann::json& object) {
  std::string message = Text(object, "message");
  const std::string field = Text(object, "field"), hint = Text(object, "hint");
  if (!field.empty() && message.find(field) == std::string::npos)
    message = absl::StrCat(field, ": ", message);
  if (!hint.empty() && message.find(hint) == std::string::npos)
    absl::StrAppend(&message, "; ", hint);
  return message;
}

// Members like "forward_seconds".
std::vector<std::pair<std::string, double>> PhasesOf(const nlohmann::json& object) {
  std::vector<std::pair<std::string, double>> phases;
  for (const auto& [key, value] : object.items()) {
    absl::string_view phase = key;
    if (value.is_number() && key != "step_seconds" && absl::ConsumeSuffix(&phase, "_seconds"))
      phases.emplace_back(std::string(phase), value.get<double>());
  }
  return phases;
}

std::optional<google::protobuf::Struct> ResultOf(const nlohmann::json& object) {
  const auto it = object.find("result");
  google::protobuf::Struct result;
  if (it == object.end() || !it->is_object()) return std::nullopt;
  if (!google::protobuf::util::JsonStringToMessage(it->dump(), &result).ok()) return std::nullopt;
  return result;
}

}  // namespace

absl::StatusOr<TrainerEvent> ParseTrainerEvent(absl::string_view line) {
  LL_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(line, kLineLimits));
  TrainerEvent out;
  out.event = Text(object, "event");
  if (out.event.empty()) return absl::InvalidArgumentError("no \"event\"");
  out.phase = Text(object, "phase");
  out.address = Text(object, "address");
  out.step = Integer(object, "step");
  out.about = Text(object, "about");
  if (out.event == "checkpoint") {
    out.checkpoint.set_step(out.step);
    out.checkpoint.set_path(Text(object, "path"));
    out.checkpoint.set_manifest_sha256(Text(object, "manifest_sha256"));
  } else if (out.event == "error") {
    out.failure_class = ClassNamed(Text(object, "class"));
    out.message = ErrorSentence(object);
    const auto cause = object.find("caused_by_rank");
    if (cause != object.end() && cause->is_number_integer()) out.caused_by_rank = cause->get<int>();
  } else if (out.event == "done") {
    out.result = ResultOf(object);
  }
  if (out.event == "step" || out.event == "times") out.phases = PhasesOf(object);
  if (out.event == "times") out.straggler_score = Number(object, "straggler_score");
  out.tokens_per_second = Number(object, "tokens_per_second");
  out.step_seconds = Number(object, "step_seconds");
  out.peak_bytes = Number(object, "peak_bytes");
  return out;
}

std::string WarningEventLine(absl::string_view time_rfc3339, int rank, absl::string_view message) {
  const nlohmann::ordered_json line = {{"event", "warning"},
                                       {"time", std::string(time_rfc3339)},
                                       {"rank", rank},
                                       {"source", "agent"},
                                       {"message", std::string(message)}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

v1::FailureClass FailureClassOfExitCode(int exit_code) {
  switch (exit_code) {
    case 0:
    case 10:
      return v1::FAILURE_CLASS_UNSPECIFIED;
    case 20:
      return v1::USER;
    case 31:
      return v1::CAPACITY;
    case 40:
      return v1::OUT_OF_MEMORY;
    case 50:
      return v1::NOT_A_NUMBER;
    default:
      return v1::INFRASTRUCTURE;  // 30, and whatever a library or the loader ended the process with
  }
}

}  // namespace ll
