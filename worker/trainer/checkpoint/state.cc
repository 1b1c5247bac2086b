#include "worker/trainer/checkpoint/state.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"

namespace ll {
namespace {

absl::Status CopyFrom(const std::shared_ptr<const SafetensorsFile>& file, const std::string& name,
                      at::Tensor destination) {
  const TensorInfo* info = file->Find(name);
  if (info == nullptr) return MakeFieldError({file->path(), "tensor " + name, "none"});
  LL_ASSIGN_OR_RETURN(const at::Tensor source, TensorView(file, *info));
  if (source.sizes() != destination.sizes() || source.scalar_type() != destination.scalar_type()) {
    return MakeFieldError({file->path(), absl::StrCat(name, " as this job's spec makes it"),
                           "another shape or dtype"});
  }
  destination.copy_(source);
  return absl::OkStatus();
}

}  // namespace

std::string TrainerStateToText(const TrainerState& state) {
  const nlohmann::ordered_json json = {
      {"version", 1},
      {"step", state.step},
      {"data_position",
       {{"rows_consumed", state.rows_consumed}, {"tokens_consumed", state.tokens_consumed}}},
      {"last_loss", state.last_loss},
      {"seed", state.spec.seed.value_or(0)},
      {"schedule",
       {{"lr_schedule", state.spec.lr_schedule.value_or("")}, {"next_step", state.step}}},
      {"data_fingerprint", state.data_fingerprint},
      {"plan", state.plan},
      {"build", state.build},
      {"spec", ToJson(state.spec)}};
  return json.dump(1) + "\n";
}

absl::StatusOr<TrainerState> ParseTrainerState(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return MakeFieldError({kTrainerStateFile, "a JSON object", "something else"});
  TrainerState state;
  try {
    state.step = json.at("step").get<int64_t>();
    state.rows_consumed = json.at("data_position").at("rows_consumed").get<int64_t>();
    state.tokens_consumed = json.at("data_position").at("tokens_consumed").get<int64_t>();
    state.last_loss = json.at("last_loss").is_number() ? json.at("last_loss").get<double>() : 0.0;
    state.data_fingerprint = json.at("data_fingerprint").get<std::string>();
    state.plan = json.at("plan");
    state.build = json.at("build");
    LL_ASSIGN_OR_RETURN(state.spec, ParseJobSpec(json.at("spec").dump()));
  } catch (const nlohmann::json::exception& error) {
    return MakeFieldError(
        {kTrainerStateFile, "step, data_position, plan, build and spec", error.what()});
  }
  return state;
}

absl::StatusOr<TrainerState> ReadTrainerState(const std::string& checkpoint) {
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(checkpoint + "/" + kTrainerStateFile));
  auto state = ParseTrainerState(text);
  if (!state.ok()) return Annotate(state.status(), checkpoint);
  return state;
}

NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              bool copy) {
  const auto held = [copy](const at::Tensor& t) { return copy ? t.clone() : t; };
  NamedTensors tensors;
  for (size_t i = 0; i < parameters.size(); ++i) {
    tensors.emplace_back("master." + parameters[i].name, held(parameters[i].master));
    tensors.emplace_back("exp_avg." + parameters[i].name, held(optimizer.exp_avg()[i]));
    tensors.emplace_back("exp_avg_sq." + parameters[i].name, held(optimizer.exp_avg_sq()[i]));
  }
  return tensors;
}

absl::Status RestoreTensors(const std::string& checkpoint, Llama& model,
                            AdamWOptimizer& optimizer) {
  LL_ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(checkpoint + "/" + kOptimizerFile));
  const absl::Status copied = TorchTry([&]() -> absl::Status {
    std::vector<Parameter>& parameters = model.parameters();
    for (size_t i = 0; i < parameters.size(); ++i) {
      const std::string& name = parameters[i].name;
      LL_RETURN_IF_ERROR(CopyFrom(file, "master." + name, parameters[i].master));
      LL_RETURN_IF_ERROR(CopyFrom(file, "exp_avg." + name, optimizer.exp_avg()[i]));
      LL_RETURN_IF_ERROR(CopyFrom(file, "exp_avg_sq." + name, optimizer.exp_avg_sq()[i]));
    }
    return absl::OkStatus();
  });
  LL_RETURN_IF_ERROR(copied);
  model.CastMastersToCompute();
  return absl::OkStatus();
}

}  // namespace ll
