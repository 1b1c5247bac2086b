#include "llctl/plan_local.h"

#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/gpu_kind.h"
#include "base/status_macros.h"
#include "llctl/spec_flags.h"
#include "model/plan/forecast_json.h"
#include "model/plan/models.h"
#include "model/plan/nearest.h"
#include "model/plan/prices.h"

namespace ll {
namespace {

absl::StatusOr<LlamaConfig> ConfigOf(const JobSpec& given) {
  if (given.model_config) {
    const bool text = absl::StartsWith(absl::StripLeadingAsciiWhitespace(*given.model_config), "{");
    auto config =
        text ? ParseLlamaConfig(*given.model_config) : ReadLlamaConfig(*given.model_config);
    return config.ok() ? config : Annotate(config.status(), "model_config");
  }
  if (!given.model) return MakeFieldError({"model", "a model", "nothing", "give --model M"});
  if (auto known = BuiltInModel(*given.model)) return *std::move(known);
  auto config = ReadLlamaConfig(*given.model);
  if (config.ok()) return config;
  return FieldStatus(
      config.status().code(), "model", config.status().message(),
      absl::StrCat("names that need no folder: ", absl::StrJoin(BuiltInModelNames(), ", ")));
}

int64_t HostMemory() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
}

bool IsOfTypes(const std::string& kind, const std::vector<std::string>& types) {
  return types.empty() || std::any_of(types.begin(), types.end(), [&kind](const auto& type) {
           return IsOfGpuType(kind, type);
         });
}

absl::StatusOr<std::vector<Cluster>> ClustersOf(const std::vector<std::string>& types,
                                                const LocalPlanOptions& options) {
  std::vector<Cluster> clusters;
  std::vector<std::string> names;
  const auto add = [&](const DeviceKind& kind) {
    Cluster c{kind.device, kind.rates, options.hosts * options.gpus_per_host,
              options.gpus_per_host};
    if (options.memory_bytes > 0) c.device.memory_bytes = options.memory_bytes;
    if (c.device.memory_bytes == 0) c.device.memory_bytes = HostMemory() / options.gpus_per_host;
    clusters.push_back(std::move(c));
  };
  for (const DeviceKind& kind : DeviceCatalogue()) {
    names.push_back(kind.device.kind);
    if (options.device.empty() && IsOfTypes(kind.device.kind, types)) add(kind);
  }
  if (options.device.empty() && clusters.empty()) {
    if (!IsOfTypes("cpu", types)) {
      return MakeFieldError({"gpu_types", absl::StrCat("cpu, ", absl::StrJoin(names, ", ")),
                             absl::StrJoin(types, ",")});
    }
    add(*FindDevice("cpu"));
  }
  if (!options.device.empty()) {
    const DeviceKind* kind = FindDevice(options.device);
    if (kind == nullptr) {
      return MakeFieldError(
          {"device", absl::StrCat("cpu, ", absl::StrJoin(names, ", ")), options.device});
    }
    if (!IsOfTypes(options.device, types)) {
      return MakeFieldError({"device",
                             absl::StrCat("one of gpu_types, ", absl::StrJoin(types, ", ")),
                             options.device, "give one of the two"});
    }
    add(*kind);
  }
  for (Cluster& c : clusters) {
    const auto kept = options.kept.find(c.device.kind);
    if (kept != options.kept.end()) c.rates = WithCalibration(c.rates, kept->second);
  }
  if (options.calibration.empty()) return clusters;
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(options.calibration));
  const auto measured = ParseCalibration(text);
  if (!measured.ok()) return Annotate(measured.status(), "calibration");
  for (Cluster& c : clusters) {
    if (c.device.kind == measured->device) c.rates = WithCalibration(c.rates, *measured);
  }
  return clusters;
}

absl::StatusOr<v1::Job> PlanOn(const Cluster& cluster, const LlamaConfig& config,
                               const Prices& prices, const JobSpec& given, JobSpec resolved) {
  const PlanProblem problem{config, given, resolved, cluster};
  const std::vector<PlannedRun> plans = Enumerate(problem);
  if (plans.empty()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "gpus",
                       "no way of dividing this training is legal");
  }
  std::optional<PlanChoice> choice = Choose(problem, plans);
  const bool forced = !choice.has_value();
  if (forced && !resolved.force.value_or(false)) {
    const Refusal refusal = Refuse(problem, plans);
    return FieldStatus(absl::StatusCode::kFailedPrecondition,
                       refusal.missing_bytes > 0 ? "context_length" : "deadline",
                       refusal.Sentence(cluster), refusal.Hint());
  }
  if (forced) choice = PlanChoice{Leanest(plans), std::nullopt, ""};
  ApplyPlan(choice->chosen.plan, resolved);
  v1::Job job;
  LL_ASSIGN_OR_RETURN(*job.mutable_resolved_spec(), SpecToProto(resolved));
  nlohmann::ordered_json forecast = ForecastJson(*choice, cluster, prices, forced);
  const DeviceKind* kind = FindDevice(cluster.device.kind);
  if (kind != nullptr && !kind->unsupported.empty()) {
    forecast["explanation"] = absl::StrCat("unsupported: ", kind->unsupported, "; ",
                                           forecast["explanation"].get<std::string>());
  }
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(forecast.dump(), job.mutable_forecast());
  LL_CHECK_MSG(parsed.ok(), "a forecast does not fit its message");
  return job;
}

}  // namespace

absl::StatusOr<std::vector<LocalPlan>> PlanLocally(const JobSpec& given,
                                                   const LocalPlanOptions& options) {
  if (given.kind.value_or("train") != "train")
    return MakeFieldError({"kind", "train, which alone is planned", *given.kind});
  LL_ASSIGN_OR_RETURN(const LlamaConfig config, ConfigOf(given));
  LL_ASSIGN_OR_RETURN(const std::vector<Cluster> clusters, ClustersOf(given.gpu_types, options));
  LL_ASSIGN_OR_RETURN(const Prices prices, ReadPrices(options.prices, options.currency));
  LL_ASSIGN_OR_RETURN(const JobSpec resolved,
                      Resolve(given, {config.ParameterCount(), config.max_position_embeddings}));
  LL_RETURN_IF_ERROR(CheckContextLength(config, *resolved.context_length,
                                        resolved.original_context_length.value_or(0)));
  std::vector<LocalPlan> plans;
  for (const Cluster& cluster : clusters)
    plans.push_back({cluster.device.kind, PlanOn(cluster, config, prices, given, resolved)});
  return plans;
}

}  // namespace ll
