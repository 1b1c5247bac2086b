#include "worker/trainer/resume.h"

#include <filesystem>
#include <set>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/common/dispatch.h"
#include "worker/trainer/checkpoint/copies.h"
#include "worker/trainer/checkpoint/load_adapter.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/memory_policy.h"

namespace ll {
namespace {

// Keys that make another training out of a resumed one.
const std::set<std::string>& FixedKeys() {
  static const auto& keys = *new std::set<std::string>{"method",         "context_length",
                                                       "max_seq_length", "attention",
                                                       "wrap",           "group_ratio",
                                                       "rope",           "lora_rank",
                                                       "lora_alpha",     "use_rslora",
                                                       "target_modules", "trainable",
                                                       "quantization",   "adapter",
                                                       "model_config",   "seed",
                                                       "shuffle",        "document_boundaries",
                                                       "precision",      "sft",
                                                       "sft_packing",    "sft_group",
                                                       "truncation",     "original_context_length"};
  return keys;
}
// Keys that change the numbers from here on, on purpose.
const std::set<std::string>& RecipeKeys() {
  static const auto& keys = *new std::set<std::string>{
      "learning_rate", "adam_beta1",  "adam_beta2",   "weight_decay",        "max_grad_norm",
      "warmup_steps",  "lr_schedule", "lora_dropout", "full_attention_steps"};
  return keys;
}

// Whether another number of steps changes those before its end.
bool GoesByLength(const JobSpec& spec) {
  return spec.lr_schedule != "constant_with_warmup" || spec.FullAttentionSteps() > 0;
}

absl::Status CompareSpecs(const JobSpec& before, const JobSpec& now, EventSink& events) {
  for (const std::string& difference : Differences(before, now)) {
    const std::string key = difference.substr(0, difference.find(':'));
    if (FixedKeys().count(key) > 0) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, key,
                         absl::StrCat("cannot change when a job resumes (", difference, ")"),
                         "keep the value, or start anew in another folder");
    }
    if (RecipeKeys().count(key) > 0 || (key == "max_steps" && GoesByLength(now)))
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

// Every weight of `full` is in its checkpoint. Other files may hold the same weights, saved anew.
void CompareBases(const TrainerState& before, const Training& training, EventSink& events) {
  if (training.spec.method == "full" || before.base_fingerprint.empty() ||
      training.base_fingerprint.empty() || before.base_fingerprint == training.base_fingerprint)
    return;
  events.Warning(absl::StrCat("the continuation may not be that of an uninterrupted run: model ",
                              training.spec.model.value_or(""),
                              " has other weight files than the adapter was trained on"));
}

// The checkpoint's batch is kept, and with it the number of steps that epochs are.
absl::Status KeepBatch(const TrainerState& before, Training& training, EventSink& events) {
  if (before.spec.global_batch_size == training.spec.global_batch_size) return absl::OkStatus();
  events.Warning(absl::StrCat("global_batch_size stays ", *before.spec.global_batch_size,
                              ", as fixed at the job's first start (",
                              *training.spec.global_batch_size, " was given)"));
  training.spec.global_batch_size = before.spec.global_batch_size;
  return CountSteps(training);
}

// Rank 0 looks, everybody takes what it found: of the ordered checkpoint's folder or of this
// attempt's own.
absl::StatusOr<std::string> AgreeOnStart(Comm& comm, EventSink& events, const JobSpec& spec,
                                         const TrainOptions& options) {
  const std::string own = options.out + "/checkpoints";
  const std::string ordered = std::filesystem::path(options.resume_from).parent_path().string();
  at::Tensor told = at::full({2}, -1.0, at::kDouble);  // step, and whether it is our own
  StartingPoint start;
  if (comm.rank() == 0) {
    LL_ASSIGN_OR_RETURN(
        start, FindStart(spec, own, options.resume_from, options.resume_manifest_sha256, events));
    if (!start.path.empty()) {
      told[0] = static_cast<double>(start.step);
      told[1] = start.path == own + "/" + CheckpointName(start.step) ? 1.0 : 0.0;
    }
  }
  LL_RETURN_IF_ERROR(comm.Broadcast(told));
  const auto step = static_cast<int64_t>(told[0].item<double>());
  if (step < 0 || comm.rank() == 0) return start.path;
  const std::string path =
      absl::StrCat(told[1].item<double>() > 0 ? own : ordered, "/", CheckpointName(step));
  const absl::Status verified = VerifyCheckpoint(path);
  if (!verified.ok()) return WithErrorClass(Annotate(verified, path), ErrorClass::kInfrastructure);
  return path;
}

// An attempt before this one ran out of memory with more: it would again.
absl::Status KeepSteppedDown(const TrainerState& before, Training& training, Llama& model) {
  if (before.memory_steps_down == 0 || training.spec.on_oom == "fail") return absl::OkStatus();
  const MemoryPolicy leaner = PolicyOf(before.spec);
  const bool offloads_nowhere = leaner.activation_offload && !training.options.device.is_cuda();
  if (offloads_nowhere || RungOf(leaner) <= RungOf(PolicyOf(training.spec)))
    return absl::OkStatus();
  TakePolicy(leaner, training);
  return model.SetMemoryPolicy(training.options.recompute, training.options.offload_activations);
}

}  // namespace

bool ChangesTraining(const std::string& key) {
  return FixedKeys().count(key) > 0 || RecipeKeys().count(key) > 0 || key == "max_steps" ||
         key == "global_batch_size";
}

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
  LL_ASSIGN_OR_RETURN(const std::string path, AgreeOnStart(comm, events, training.spec, options));
  TrainerState state;
  if (!path.empty()) {
    LL_ASSIGN_OR_RETURN(state, ReadTrainerState(path));
    LL_RETURN_IF_ERROR(KeepBatch(state, training, events));
    LL_RETURN_IF_ERROR(CompareSpecs(state.spec, training.spec, events));
    if (state.data_fingerprint != training.data_fingerprint) {
      return FieldStatus(
          absl::StatusCode::kFailedPrecondition, "data",
          absl::StrCat(*training.spec.data, " is not the file that ", path, " was trained on"),
          "give the same data, or start anew in another folder");
    }
    CompareBases(state, training, events);
    ComparePlans(state.plan, PlanOf(training, comm), events);
    LL_RETURN_IF_ERROR(KeepSteppedDown(state, training, model));
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
