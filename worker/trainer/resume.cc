#include "worker/trainer/resume.h"

#include <set>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/common/dispatch.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

// Keys that make another training out of a resumed one.
const std::set<std::string>& FixedKeys() {
  static const auto& keys = *new std::set<std::string>{
      "method",         "context_length", "max_seq_length",      "attention",  "wrap",
      "group_ratio",    "rope",           "lora_rank",           "lora_alpha", "use_rslora",
      "target_modules", "trainable",      "quantization",        "adapter",    "model_config",
      "seed",           "shuffle",        "document_boundaries", "precision",  "sft",
      "sft_packing",    "sft_group"};
  return keys;
}
// Keys that change the numbers from here on, on purpose.
const std::set<std::string>& RecipeKeys() {
  static const auto& keys = *new std::set<std::string>{
      "learning_rate", "adam_beta1",  "adam_beta2",   "weight_decay",        "max_grad_norm",
      "warmup_steps",  "lr_schedule", "lora_dropout", "full_attention_steps"};
  return keys;
}

absl::Status CompareSpecs(const JobSpec& before, const JobSpec& now, EventSink& events) {
  for (const std::string& difference : Differences(before, now)) {
    const std::string key = difference.substr(0, difference.find(':'));
    if (FixedKeys().count(key) > 0) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, key,
                         absl::StrCat("cannot change when a job resumes (", difference, ")"),
                         "keep the value, or start anew in another folder");
    }
    if (RecipeKeys().count(key) > 0)
      events.Warning(absl::StrCat("resumed with another recipe: ", difference));
  }
  return absl::OkStatus();
}

void ComparePlans(const nlohmann::json& before, const nlohmann::json& now, EventSink& events) {
  for (const auto& [key, value] : now.items()) {
    // Recomputed activations have the same bits as kept ones.
    if (key == "recompute" || !before.contains(key) || before[key] == value) continue;
    events.Warning(absl::StrCat("the continuation is not bitwise that of an uninterrupted run: ",
                                key, " ", before[key].dump(), " -> ", value.dump()));
  }
}

// Rank 0 looks, everybody takes what it found.
absl::StatusOr<FoundCheckpoint> AgreeOnCheckpoint(Comm& comm, EventSink& events,
                                                  const std::string& root) {
  FoundCheckpoint found;
  at::Tensor step = at::full({1}, -1.0, at::kDouble);
  if (comm.rank() == 0) {
    LL_ASSIGN_OR_RETURN(found, FindNewestCheckpoint(root));
    for (const std::string& reason : found.skipped)
      events.Warning("skipped damaged checkpoint " + reason);
    if (!found.path.empty()) step[0] = static_cast<double>(found.step);
  }
  LL_RETURN_IF_ERROR(comm.Broadcast(step));
  const int64_t agreed = static_cast<int64_t>(step[0].item<double>());
  if (agreed < 0 || comm.rank() == 0) return found;
  found.step = agreed;
  found.path = root + "/" + CheckpointName(agreed);
  const absl::Status verified = VerifyCheckpoint(found.path);
  if (!verified.ok())
    return WithErrorClass(Annotate(verified, found.path), ErrorClass::kInfrastructure);
  return found;
}

}  // namespace

nlohmann::json PlanOf(const Training& training, const Comm& comm) {
  const Isa isa = CpuIsa();
  return {{"data_parallel", comm.world_size() / training.context_ranks},
          {"context_parallel", training.context_ranks},
          {"recompute", *training.spec.recompute},
          {"precision", *training.spec.precision},
          {"threads", at::get_num_threads()},
          {"isa", isa == Isa::kAvx512 ? (CpuHasAmx() ? "avx512+amx" : "avx512")
                  : isa == Isa::kAvx2 ? "avx2"
                                      : "generic"},
          {"torch_capability", at::get_cpu_capability()},
          {"build", LL_VERSION}};
}

absl::StatusOr<TrainerState> ResumeOrStart(Training& training, Llama& model,
                                           AdamWOptimizer& optimizer, Comm& comm, EventSink& events,
                                           const TrainOptions& options) {
  std::string path = options.resume_from;
  if (path.empty()) {
    LL_ASSIGN_OR_RETURN(const FoundCheckpoint found,
                        AgreeOnCheckpoint(comm, events, options.out + "/checkpoints"));
    path = found.path;
  } else {
    const absl::Status verified = VerifyCheckpoint(path, options.resume_manifest_sha256);
    if (!verified.ok())
      return WithErrorClass(Annotate(verified, path), ErrorClass::kInfrastructure);
  }
  TrainerState state;
  if (!path.empty()) {
    LL_ASSIGN_OR_RETURN(state, ReadTrainerState(path));
    LL_RETURN_IF_ERROR(CompareSpecs(state.spec, training.spec, events));
    if (state.data_fingerprint != training.data_fingerprint) {
      return FieldStatus(
          absl::StatusCode::kFailedPrecondition, "data",
          absl::StrCat(*training.spec.data, " is not the file that ", path, " was trained on"),
          "give the same data, or start anew in another folder");
    }
    if (state.spec.global_batch_size != training.spec.global_batch_size) {
      events.Warning(absl::StrCat("global_batch_size stays ", *state.spec.global_batch_size,
                                  ", as fixed at the job's first start (",
                                  *training.spec.global_batch_size, " was given)"));
      training.spec.global_batch_size = state.spec.global_batch_size;
    }
    ComparePlans(state.plan, PlanOf(training, comm), events);
    LL_RETURN_IF_ERROR(RestoreTensors(path, model, optimizer));
    events.Phase("load", {{"resumed_from", path}, {"step", state.step}});
  }
  if (path.empty() && training.spec.adapter) {
    LL_RETURN_IF_ERROR(LoadAdapter(*training.spec.adapter, model));
    events.Phase("load", {{"adapter", *training.spec.adapter}});
  }
  state.spec = training.spec;
  state.plan = PlanOf(training, comm);
  state.build = {{"version", LL_VERSION}, {"torch", TORCH_VERSION}};
  state.data_fingerprint = training.data_fingerprint;
  state.base_fingerprint = training.base_fingerprint;
  return state;
}

}  // namespace ll
