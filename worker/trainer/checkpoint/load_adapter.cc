#include "worker/trainer/checkpoint/load_adapter.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/peft.h"

namespace ll {
namespace {

constexpr char kHead[] = "lm_head.weight";  // a tied one is saved a second time

std::string ListText(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  return absl::StrJoin(names, ", ");
}

template <typename T, typename U>
absl::Status Adopt(const char* key, std::optional<T>& given, const U& adapter) {
  if (given && *given != static_cast<T>(adapter)) {
    return MakeFieldError({key, absl::StrCat(adapter, ", as the adapter has"), absl::StrCat(*given),
                           "leave the key out, or start without adapter"});
  }
  given = static_cast<T>(adapter);
  return absl::OkStatus();
}

absl::Status AdoptTargets(JobSpec& spec, const AdapterConfig& adapter) {
  std::vector<std::string> given = spec.target_modules;
  if (given == std::vector<std::string>{"all-linear"}) given = AllLinearModules();
  if (!given.empty() && ListText(given) != ListText(adapter.target_modules)) {
    return MakeFieldError({"target_modules",
                           absl::StrCat(ListText(adapter.target_modules), ", as the adapter has"),
                           ListText(given), "leave the key out, or start without adapter"});
  }
  spec.target_modules = adapter.target_modules;
  return absl::OkStatus();
}

absl::Status AdoptTrainable(JobSpec& spec, const AdapterConfig& adapter) {
  std::vector<std::string> held;
  if (adapter.trains_embedding) held.push_back("embed");
  if (adapter.trains_norm) held.push_back("norm");
  if (spec.trainable.empty())
    spec.trainable = held.empty() ? std::vector<std::string>{"none"} : held;
  for (const std::string& part : held) {
    if (std::count(spec.trainable.begin(), spec.trainable.end(), part) == 0) {
      return MakeFieldError({"trainable",
                             absl::StrCat("a list with ", part, ", which the adapter holds"),
                             ListText(spec.trainable)});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<AdapterConfig> ReadAdapterConfig(const std::string& adapter_folder) {
  const std::string path = adapter_folder + "/" + kAdapterConfigFile;
  if (!FileExists(path)) return NoAdapterIn("adapter", adapter_folder);
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto config = ParseAdapterConfig(text);
  return config.ok() ? config : Annotate(config.status(), path);
}

absl::StatusOr<JobSpec> SpecFromAdapter(const JobSpec& given, const AdapterConfig& adapter) {
  JobSpec spec = given;
  if (spec.method == "full") {
    return MakeFieldError({"method", "lora, longlora, qlora or longqlora, because adapter is given",
                           "full",
                           "to train every weight, merge the adapter into the model first"});
  }
  if (!adapter.obstacle.empty()) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "adapter",
                       absl::StrCat("cannot be trained on: ", adapter.obstacle),
                       "merge it into the model and train a new one");
  }
  LL_RETURN_IF_ERROR(Adopt("lora_rank", spec.lora_rank, adapter.rank));
  LL_RETURN_IF_ERROR(Adopt("lora_alpha", spec.lora_alpha, adapter.alpha));
  LL_RETURN_IF_ERROR(Adopt("use_rslora", spec.use_rslora, adapter.use_rslora));
  if (!spec.lora_dropout) spec.lora_dropout = adapter.dropout;
  LL_RETURN_IF_ERROR(AdoptTargets(spec, adapter));
  LL_RETURN_IF_ERROR(AdoptTrainable(spec, adapter));
  return spec;
}

LoraSpec LoraSpecOf(const AdapterConfig& adapter) {
  LoraSpec lora;
  lora.rank = static_cast<int>(adapter.rank);
  lora.alpha = adapter.alpha;
  lora.dropout = adapter.dropout;
  lora.target_modules = adapter.target_modules;
  lora.use_rslora = adapter.use_rslora;
  return lora;
}

absl::Status LoadAdapter(const std::string& adapter_folder, Llama& model) {
  LL_ASSIGN_OR_RETURN(const auto file, SafetensorsFile::Open(adapter_folder + "/" + kAdapterFile));
  std::set<std::string> used;
  for (Parameter& parameter : model.parameters()) {
    const std::string name = absl::StrCat(kPeftPrefix, parameter.name);
    const TensorInfo* info = file->Find(name);
    if (info == nullptr) {
      if (!parameter.is_lora) continue;  // trained from the base's value on
      return MakeFieldError({file->path(), name, "nothing"}, absl::StatusCode::kNotFound);
    }
    if (info->shape != parameter.master.sizes().vec()) {
      return MakeFieldError(
          {absl::StrCat(file->path(), ": ", name),
           absl::StrCat("shape [", absl::StrJoin(parameter.master.sizes(), ", "), "]"),
           absl::StrCat("[", absl::StrJoin(info->shape, ", "), "]")});
    }
    LL_ASSIGN_OR_RETURN(const at::Tensor view, TensorView(file, *info));
    LL_RETURN_IF_ERROR(TorchTry([&] {
      parameter.master.copy_(view);
      return absl::OkStatus();
    }));
    used.insert(name);
  }
  if (model.config().tie_word_embeddings) used.insert(absl::StrCat(kPeftPrefix, kHead));
  for (const TensorInfo& tensor : file->tensors()) {
    if (used.count(tensor.name) > 0) continue;
    return MakeFieldError({absl::StrCat(file->path(), ": ", tensor.name),
                           "tensors of what this job trains", "another"});
  }
  model.CastMastersToCompute();
  return absl::OkStatus();
}

}  // namespace ll
