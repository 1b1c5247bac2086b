#include "worker/trainer/checkpoint/trainer_state.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

using nlohmann::json;

// Beyond what any training reaches; sums and products of these do not overflow.
constexpr int64_t kMaxCount = int64_t{1} << 60;

const json& Member(const json& object, const char* name) {
  static const json& none = *new json();
  const auto it = object.is_object() ? object.find(name) : object.end();
  return it == object.end() ? none : *it;
}

absl::Status Bad(absl::string_view member, absl::string_view expected, const json& found) {
  return MakeFieldError(
      {absl::StrCat(kTrainerStateFile, " ", member), expected, JsonExcerpt(found)});
}

absl::StatusOr<int64_t> Count(const json& object, const char* name) {
  const json& value = Member(object, name);
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(kMaxCount))
    return Bad(name, absl::StrCat("a count from 0 to ", kMaxCount), value);
  return value.get<int64_t>();
}

absl::StatusOr<GuardState> GuardOf(const json& value) {
  GuardState guard;
  if (value.is_null()) return guard;  // an older file
  const json& losses = Member(value, "losses");
  if (!losses.is_array() || losses.size() > kLossWindow)
    return Bad("guard losses", absl::StrCat("at most ", kLossWindow, " numbers"), losses);
  for (const json& loss : losses) {
    if (!loss.is_number()) return Bad("guard losses", "numbers", loss);
    guard.losses.push_back(loss.get<double>());
  }
  LL_ASSIGN_OR_RETURN(guard.in_a_row, Count(value, "in_a_row"));
  LL_ASSIGN_OR_RETURN(guard.skipped_steps, Count(value, "skipped_steps"));
  LL_ASSIGN_OR_RETURN(guard.rollbacks, Count(value, "rollbacks"));
  return guard;
}

absl::StatusOr<JobSpec> SpecOf(const json& value) {
  if (!value.is_object()) return Bad("spec", "an object", value);
  LL_ASSIGN_OR_RETURN(JobSpec spec, ParseJobSpec(value.dump()));
  LL_RETURN_IF_ERROR(Validate(spec));
  // What a resume compares and takes over.
  if (!spec.global_batch_size) return Bad("spec", "a resolved spec with global_batch_size", value);
  return spec;
}

}  // namespace

std::string TrainerStateToText(const TrainerState& state) {
  nlohmann::ordered_json json = {
      {"version", 1},
      {"step", state.step},
      {"data_position",
       {{"rows_consumed", state.rows_consumed},
        {"tokens_consumed", state.tokens_consumed},
        {"rows_skipped", state.rows_skipped}}},
      {"last_loss", state.last_loss},
      {"guard",
       {{"losses", state.guard.losses},
        {"in_a_row", state.guard.in_a_row},
        {"skipped_steps", state.guard.skipped_steps},
        {"rollbacks", state.guard.rollbacks}}},
      {"seed", state.spec.seed.value_or(0)},
      {"schedule",
       {{"lr_schedule", state.spec.lr_schedule.value_or("")}, {"next_step", state.step}}},
      {"data_fingerprint", state.data_fingerprint},
      {"base_fingerprint", state.base_fingerprint},
      {"plan", state.plan},
      {"build", state.build},
      {"spec", ToJson(state.spec)}};
  if (state.memory_steps_down > 0) json["memory_steps_down"] = state.memory_steps_down;
  if (std::isfinite(state.best_perplexity)) {
    json["early_stopping"] = {{"best_perplexity", state.best_perplexity},
                              {"evaluations_without_gain", state.evaluations_without_gain}};
  }
  return json.dump(1) + "\n";
}

absl::StatusOr<TrainerState> ParseTrainerState(const std::string& text) {
  const auto parsed = ParseJsonObject(text);
  if (!parsed.ok()) return Annotate(parsed.status(), kTrainerStateFile);
  const json& root = *parsed;
  TrainerState state;
  LL_ASSIGN_OR_RETURN(state.step, Count(root, "step"));
  const json& position = Member(root, "data_position");
  LL_ASSIGN_OR_RETURN(state.rows_consumed, Count(position, "rows_consumed"));
  LL_ASSIGN_OR_RETURN(state.tokens_consumed, Count(position, "tokens_consumed"));
  if (position.contains("rows_skipped")) {  // older files have none
    LL_ASSIGN_OR_RETURN(state.rows_skipped, Count(position, "rows_skipped"));
  }
  LL_ASSIGN_OR_RETURN(state.guard, GuardOf(Member(root, "guard")));
  if (root.contains("memory_steps_down")) {
    LL_ASSIGN_OR_RETURN(state.memory_steps_down, Count(root, "memory_steps_down"));
  }
  const json& loss = Member(root, "last_loss");
  if (loss.is_number()) state.last_loss = loss.get<double>();
  if (const json& stopping = Member(root, "early_stopping"); stopping.is_object()) {
    const json& best = Member(stopping, "best_perplexity");
    if (!best.is_number()) return Bad("best_perplexity", "a number", best);
    state.best_perplexity = best.get<double>();
    LL_ASSIGN_OR_RETURN(state.evaluations_without_gain,
                        Count(stopping, "evaluations_without_gain"));
  }
  const json& fingerprint = Member(root, "data_fingerprint");
  if (!fingerprint.is_string()) return Bad("data_fingerprint", "text", fingerprint);
  state.data_fingerprint = fingerprint.get<std::string>();
  const json& base = Member(root, "base_fingerprint");  // older files have none
  if (base.is_string()) state.base_fingerprint = base.get<std::string>();
  state.plan = Member(root, "plan");
  if (!state.plan.is_object()) return Bad("plan", "an object", state.plan);
  state.build = Member(root, "build");
  auto spec = SpecOf(Member(root, "spec"));
  if (!spec.ok()) return Annotate(spec.status(), absl::StrCat(kTrainerStateFile, " spec"));
  state.spec = *std::move(spec);
  return state;
}

absl::StatusOr<TrainerState> ReadTrainerState(const std::string& checkpoint) {
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(checkpoint + "/" + kTrainerStateFile));
  auto state = ParseTrainerState(text);
  if (!state.ok()) return Annotate(state.status(), checkpoint);
  return state;
}

}  // namespace ll
