#include "coordinator/api/admission.h"

#include <google/protobuf/util/json_util.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <map>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/gpu_types.h"
#include "coordinator/api/request_checks.h"
#include "model/plan/devices.h"
#include "model/plan/models.h"

namespace ll {
namespace {

constexpr int64_t kMaxConfigBytes = 1 << 20;

bool IsPath(const std::string& text) { return text.find('/') != std::string::npos; }

// The record that a user means by a name: the tenant's own, else everybody's. Administrators may
// write out "TENANT/NAME". Null: there is none that the user may use.
template <typename Map>
const typename Map::mapped_type* FindNamed(const Map& map, const Access& access,
                                           const std::string& name) {
  if (!access.tenant.empty()) {
    const auto own = map.find(QualifiedName(access.tenant, name));
    if (own != map.end()) return &own->second;
  }
  const auto it = map.find(name);
  const std::string tenant = TenantOfName(name);
  return it != map.end() && (tenant.empty() || access.Sees(tenant)) ? &it->second : nullptr;
}

template <typename Map>
std::string Names(const Map& map, const Access& access) {
  std::vector<std::string> names;
  for (const auto& [name, record] : map) {
    const std::string tenant = TenantOfName(name);
    if (tenant == access.tenant || tenant.empty()) names.push_back(PlainNameOf(name));
  }
  for (const std::string& name : BuiltInModelNames()) {
    if constexpr (std::is_same_v<typename Map::mapped_type, ModelRecord>) {
      if (map.count(name) == 0) names.push_back(name);
    }
  }
  return names.empty() ? "none" : absl::StrJoin(names, ", ");
}

// The model's place and shape.
struct ModelChoice {
  std::string path;  // empty: from random weights, or (dry run) not registered
  std::shared_ptr<const LlamaConfig> config;  // null: not known
};

// Null where nothing is known.
absl::StatusOr<std::shared_ptr<const LlamaConfig>> ParseKnown(const std::string& json,
                                                              absl::string_view field,
                                                              const AdmissionOptions& options) {
  if (json.empty()) return nullptr;
  ConfigCache unknown;
  auto config = (options.configs != nullptr ? *options.configs : unknown).Parse(json);
  if (!config.ok()) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, field,
                       absl::StrCat("the model cannot be used: ", config.status().message()));
  }
  return config;
}

absl::StatusOr<ModelChoice> FindModel(const JobSpec& spec, const ClusterView& view,
                                      const AdmissionRequest& request,
                                      const AdmissionOptions& options) {
  ModelChoice choice;
  if (spec.model_config.has_value()) {
    if (absl::StartsWith(absl::StripLeadingAsciiWhitespace(*spec.model_config),
                         "{")) {  // the text itself
      LL_ASSIGN_OR_RETURN(choice.config, ParseKnown(*spec.model_config, "model_config", options));
      return choice;
    }
    LL_RETURN_IF_ERROR(CheckPath("model_config", *spec.model_config, options));
    if (!options.paths_are_local) return choice;
    const auto text = ReadPlainFile(*spec.model_config, kMaxConfigBytes);
    if (absl::IsInvalidArgument(text.status())) {
      return FieldStatus(absl::StatusCode::kInvalidArgument, "model_config",
                         text.status().message());
    }
    LL_ASSIGN_OR_RETURN(choice.config, ParseKnown(text.ok() ? *text : "", "model_config", options));
    return choice;
  }
  if (!spec.model.has_value()) return choice;  // Resolve says what is missing
  const std::string& name = *spec.model;
  const ModelRecord* registered = FindNamed(view.models, request.access, name);
  if (registered != nullptr && !registered->path.empty()) {
    choice.path = registered->path;
    LL_ASSIGN_OR_RETURN(choice.config, ParseKnown(registered->config_json, "model", options));
    return choice;
  }
  if (auto known = BuiltInModel(name)) {
    if (!request.dry_run) {
      return FieldStatus(
          absl::StatusCode::kFailedPrecondition, "model",
          absl::StrCat("the weights of ", name, " are not registered"),
          absl::StrCat("register their folder with: llctl models add ", name, " PATH"));
    }
    choice.config = std::make_shared<const LlamaConfig>(*std::move(known));
    return choice;
  }
  if (!IsPath(name)) {
    return MakeFieldError({"model",
                           absl::StrCat("a registered name (", Names(view.models, request.access),
                                        ") or a folder's path"),
                           absl::StrCat("\"", name.substr(0, 80), "\""),
                           "llctl models add NAME PATH registers a folder"});
  }
  choice.path = name;
  LL_RETURN_IF_ERROR(CheckPath("model", name, options));
  LL_ASSIGN_OR_RETURN(std::string json, ConfigOfFolder(name, options));
  LL_ASSIGN_OR_RETURN(choice.config, ParseKnown(json, "model", options));
  return choice;
}

// Replaces a registered name by its path; `key` absent takes the cluster's default.
absl::Status FindData(absl::string_view key, std::optional<std::string>& value,
                      const ClusterView& view, const Access& access,
                      const AdmissionOptions& options) {
  if (!value.has_value()) {
    for (const auto& [name, data] : view.data) {
      if (data.is_default) value = data.path;
    }
    if (value.has_value()) return absl::OkStatus();
    return FieldStatus(absl::StatusCode::kFailedPrecondition, key,
                       "no data was given and the cluster has no default",
                       "give --data, or set a default with: llctl data add NAME PATH --default");
  }
  if (const DataRecord* registered = FindNamed(view.data, access, *value)) {
    value = registered->path;
    return absl::OkStatus();
  }
  if (!IsPath(*value)) {
    return MakeFieldError(
        {key,
         absl::StrCat("a registered name (", Names(view.data, access), ") or a token file's path"),
         absl::StrCat("\"", value->substr(0, 80), "\""),
         "llctl data add NAME PATH registers a token file"});
  }
  return CheckPath(key, *value, options);
}

template <typename T>
void Inherit(T JobSpec::*member, const JobSpec& source, JobSpec& spec) {
  if (spec.*member == T()) spec.*member = source.*member;
}

// What a training that goes on from another one's weights must have in common with it.
void InheritMethod(const JobSpec& source, JobSpec& spec) {
  using J = JobSpec;
  for (auto member : {&J::method, &J::quantization, &J::rope}) Inherit(member, source, spec);
  Inherit(&J::lora_rank, source, spec);
  Inherit(&J::lora_alpha, source, spec);
  Inherit(&J::use_rslora, source, spec);
  for (auto member : {&J::target_modules, &J::trainable}) Inherit(member, source, spec);
  Inherit(&J::original_context_length, source, spec);
}

// A verification has its spec in the checkpoint; it takes the training's size, and its host.
absl::Status ApplyVerified(const SourceJob& source, bool later, JobSpec& spec, CoreSpec& core,
                           const AdmissionOptions& options) {
  if (later) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "after",
                       "a verification compares checkpoints that are there",
                       "submit it when the training has written them");
  }
  if (source.resolved.kind.value_or("train") != "train") {
    return MakeFieldError({"job", "a training",
                           absl::StrCat(source.id.value(), ", of kind ", *source.resolved.kind)});
  }
  spec.adapter = source.checkpoint->path;
  if (!spec.gpus.has_value()) spec.gpus = source.resolved.gpus;
  if (spec.gpu_types.empty()) spec.gpu_types = source.resolved.gpu_types;
  if (!options.shared_job_store && !source.checkpoint->host.empty())
    core.hosts = {source.checkpoint->host};
  return absl::OkStatus();
}

// A job of another job's weights: its newest checkpoint as it is now, or, when it is named in
// `after` and has not ended, the one that it ends with. They go on top of its model or (method
// full) in its place. A merge reads context and scaling from the checkpoint itself.
absl::Status ApplySource(const SourceJob& source, JobSpec& spec, CoreSpec& core,
                         const AdmissionOptions& options) {
  const bool later =
      !source.ended && std::count(spec.after.begin(), spec.after.end(), source.id.value()) > 0;
  if (later && source.resolved.kind != "train") {
    return MakeFieldError(
        {"job", "a training",
         absl::StrCat(source.id.value(), ", of kind ", source.resolved.kind.value_or(""))});
  }
  if (!later && !source.checkpoint.has_value()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "job",
                       absl::StrCat(source.id.value(), " has no checkpoint yet"),
                       "wait for its first one, or name the job in `after` too");
  }
  if (spec.kind == "verify") return ApplyVerified(source, later, spec, core, options);
  const bool train = spec.kind.value_or("train") == "train";
  const bool full = source.resolved.method.value_or("") == "full";
  if (train) {
    InheritMethod(source.resolved, spec);
    if ((spec.method == "full") != full) {
      return MakeFieldError({"method",
                             absl::StrCat(full ? "full" : "a method with an adapter", ", as ",
                                          source.id.value(), " has"),
                             spec.method.value_or("longlora")});
    }
  }
  if (later) {
    // The order to start it names the checkpoint; until then the shape comes from what the source
    // starts from.
    core.source = source.id;
    if (!spec.model.has_value() && !spec.model_config.has_value()) {
      spec.model = source.resolved.model;
      if (train && full) spec.model_config = source.resolved.model_config;
    }
  } else if (full) {
    spec.model = source.checkpoint->path;
  } else {
    if (!spec.model.has_value()) spec.model = source.resolved.model;
    spec.adapter = source.checkpoint->path;
  }
  if (spec.kind == "eval" && !spec.context_length.has_value() &&
      !spec.eval_context_size.has_value() && source.resolved.context_length.has_value()) {
    spec.eval_context_size = std::max(*source.resolved.context_length,
                                      spec.eval_seq_len.value_or(*source.resolved.context_length));
    if (!spec.eval_seq_len.has_value()) spec.eval_seq_len = *source.resolved.context_length;
  }
  if (!spec.tokenizer.has_value()) spec.tokenizer = source.resolved.tokenizer;
  if (!later && !options.shared_job_store && !source.checkpoint->host.empty())
    core.hosts = {source.checkpoint->host};
  return absl::OkStatus();
}

// The same with what has been measured on them.
std::vector<Cluster> ClustersOf(const ClusterView& view, const JobSpec& resolved,
                                const AdmissionOptions& options) {
  std::vector<Cluster> clusters = SlotsByKind(view, *resolved.gpus);
  std::erase_if(clusters, [&resolved](const Cluster& cluster) {
    return !MayRunOn(resolved, cluster.device.kind);
  });
  for (Cluster& cluster : clusters) {
    const std::string& kind = cluster.device.kind;
    const auto given = options.calibrations.find(kind);
    if (given != options.calibrations.end())
      cluster.rates = WithCalibration(cluster.rates, given->second);
    if (options.measured != nullptr) {
      if (const auto measured = options.measured(kind))
        cluster.rates = WithCalibration(cluster.rates, *measured);
    }
    if (options.memory_factor != nullptr) {
      cluster.memory_factor =
          options.memory_factor(kind, resolved.model.value_or(""), resolved.method.value_or(""));
    }
  }
  return clusters;
}

// Chooses the plan (into `resolved`, where the user left it open), and fills forecast, required
// bytes and allowed kinds; FailedPrecondition where nothing holds the job and it is not forced.
absl::Status Plan(const std::shared_ptr<const LlamaConfig>& config, const JobSpec& given,
                  const ClusterView& view, const AdmissionOptions& options, JobSpec& resolved,
                  CoreSpec& core, v1::Forecast& forecast) {
  if (const std::string worker = WorkerThatTellsNoMemory(view); !worker.empty()) {
    forecast.set_explanation(absl::StrCat("worker ", worker, " does not tell its slots' memory"));
    return absl::OkStatus();
  }
  PlanQuestion question{config, given, resolved, ClustersOf(view, resolved, options),
                        !view.workers.empty()};
  StripForPlan(question.given);
  StripForPlan(question.resolved);
  const std::shared_ptr<const PlanAnswer> answer =
      options.plans != nullptr
          ? options.plans->Ask(std::move(question), options.prices)
          : std::make_shared<const PlanAnswer>(AnswerOf(question, options.prices));
  LL_RETURN_IF_ERROR(answer->refused);
  forecast = answer->forecast;
  if (!answer->plan.has_value()) return absl::OkStatus();
  ApplyPlan(*answer->plan, resolved);
  if (answer->trainer_chooses_recompute) resolved.recompute = "auto";
  core.forecast_duration = answer->duration;
  core.required_slot_bytes = answer->required_slot_bytes;
  core.slot_kinds = answer->slot_kinds;
  return absl::OkStatus();
}

absl::Duration SecondsOr(const std::optional<int64_t>& seconds, absl::Duration otherwise) {
  return seconds.value_or(0) > 0 ? absl::Seconds(*seconds) : otherwise;
}

void FillCore(const JobSpec& spec, absl::Time now, CoreSpec& core) {
  core.name = spec.name.value_or("");
  core.kind = spec.kind.value_or("train");
  core.queue = spec.queue.value_or("default");
  core.gpus = static_cast<int>(spec.gpus.value_or(1));
  if (spec.max_gpus.value_or(0) > core.gpus) {
    core.max_gpus = static_cast<int>(*spec.max_gpus);
    core.batch_rows = static_cast<int>(spec.global_batch_size.value_or(0));
    core.row_ranks = static_cast<int>(spec.context_parallel.value_or(1));
  }
  // The plan may have left out some of the types that the user named.
  if (core.slot_kinds.empty()) core.slot_kinds = spec.gpu_types;
  core.kinds_named = !spec.gpu_types.empty();
  core.copies_checkpoints = spec.checkpoint_uri.has_value();
  core.priority = static_cast<int>(spec.priority.value_or(0));
  core.max_retries = static_cast<int>(spec.max_retries.value_or(3));
  for (const std::string& id : spec.after) core.after.emplace_back(id);
  for (const std::string& id : spec.after_any) core.after_any.emplace_back(id);
  if (spec.min_runtime.has_value()) core.min_runtime = absl::Seconds(*spec.min_runtime);
  core.labels = spec.labels;
  core.deadline = now + SecondsOr(spec.deadline, absl::InfiniteDuration());
  core.max_runtime = SecondsOr(spec.max_runtime, absl::InfiniteDuration());
  core.max_headless = SecondsOr(spec.max_headless, absl::Hours(24));
  core.ttl_after_finished = SecondsOr(spec.ttl_after_finished, absl::InfiniteDuration());
}

}  // namespace

SourceJob SourceOf(const Job& job) {
  v1::JobSpec resolved;
  resolved.ParseFromString(job.payload->resolved_spec);
  return {job.id, SpecFromProto(resolved), job.newest_checkpoint, IsTerminal(job.state)};
}

absl::Status CheckPath(absl::string_view field, const std::string& path,
                       const AdmissionOptions& options) {
  const std::string found = absl::StrCat("\"", path.substr(0, 200), "\"");
  if (path.empty() || path[0] != '/') {
    return MakeFieldError({field, "an absolute path on the workers", found});
  }
  for (absl::string_view part : absl::StrSplit(path, '/')) {
    if (part == "..") return MakeFieldError({field, "a path without \"..\"", found});
  }
  // Where a process's own view of the host is, and what never ends.
  for (absl::string_view folder : {"/proc", "/sys", "/dev"}) {
    const bool beneath = path == folder || absl::StartsWith(path, absl::StrCat(folder, "/"));
    if (beneath && !absl::StartsWith(path, "/dev/shm/"))
      return MakeFieldError({field, absl::StrCat("a path outside ", folder), found});
  }
  if (path.size() >= PATH_MAX || std::any_of(path.begin(), path.end(), [](char c) {
        return absl::ascii_iscntrl(static_cast<unsigned char>(c));
      })) {
    return MakeFieldError({field, "a path of at most 4095 bytes without control characters",
                           OneLine(path.substr(0, 80))});
  }
  struct stat st;
  if (options.paths_are_local && stat(path.c_str(), &st) != 0 &&
      (errno == ENOENT || errno == ENOTDIR)) {
    return MakeFieldError({field, "a path that exists", found}, absl::StatusCode::kNotFound);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ConfigOfFolder(const std::string& path,
                                           const AdmissionOptions& options) {
  if (!options.paths_are_local) return "";
  const std::string file = absl::StrCat(path, "/config.json");
  struct stat st;
  // Not following what is not a plain file: a FIFO would hang the reader.
  const bool there = stat(file.c_str(), &st) == 0;
  if (!there && errno == EACCES) return "";  // the workers may still read it
  if (!there || !S_ISREG(st.st_mode)) {
    return MakeFieldError(
        {"model", "a Hugging Face folder with a config.json", absl::StrCat("none in ", path)},
        absl::StatusCode::kNotFound);
  }
  if (st.st_size > kMaxConfigBytes) {
    return MakeFieldError(
        {"model", "a config.json of at most 1 MiB", absl::StrCat(st.st_size, " bytes")});
  }
  const auto text = ReadPlainFile(file, kMaxConfigBytes);
  if (!text.ok() && text.status().code() == absl::StatusCode::kPermissionDenied) return "";
  return text;
}

absl::StatusOr<Admitted> Admit(const AdmissionRequest& request, const ClusterView& view,
                               const AdmissionOptions& options) {
  LL_RETURN_IF_ERROR(CheckTexts(request.spec));
  JobSpec spec = SpecFromProto(request.spec);
  LL_RETURN_IF_ERROR(Validate(spec));
  const std::string kind = spec.kind.value_or("train");
  if (kind != "train" && kind != "eval" && kind != "merge" && kind != "generate" &&
      kind != "verify") {
    return MakeFieldError({"kind", "train, eval, merge, generate or verify", kind},
                          absl::StatusCode::kUnimplemented);
  }
  if (!spec.stages.empty()) {
    return FieldStatus(absl::StatusCode::kUnimplemented, "stages",
                       "only Submit makes the jobs of a training in stages");
  }
  if (spec.notify.has_value()) {
    if (options.check_notify == nullptr) {
      return MakeFieldError({"notify", "no endpoint, for this coordinator has no webhooks",
                             absl::StrCat("\"", OneLine(spec.notify->substr(0, 80)), "\"")});
    }
    const auto [label, fresh] = spec.labels.emplace("notify", *spec.notify);
    if (!fresh && label->second != *spec.notify)
      return MakeFieldError({"notify", "what the label notify says", *spec.notify});
  }
  if (const auto notify = spec.labels.find("notify");
      notify != spec.labels.end() && options.check_notify != nullptr) {
    LL_RETURN_IF_ERROR(options.check_notify(notify->second, request.access.tenant));
  }
  Admitted out;
  if (request.source.has_value())
    LL_RETURN_IF_ERROR(ApplySource(*request.source, spec, out.core, options));
  LL_ASSIGN_OR_RETURN(ModelChoice model, FindModel(spec, view, request, options));
  const bool perplexity = kind == "eval" && spec.eval_task.value_or("perplexity") == "perplexity";
  if (kind == "train") {
    LL_RETURN_IF_ERROR(FindData("data", spec.data, view, request.access, options));
  } else if (perplexity && !spec.eval_data.has_value()) {
    spec.eval_data = spec.data;
  }
  if (perplexity || spec.eval_data.has_value()) {
    LL_RETURN_IF_ERROR(FindData("eval_data", spec.eval_data, view, request.access, options));
  }
  if (kind == "merge" && absl::StartsWith(spec.merge_out.value_or(""), "/")) {
    // The folder itself is to be made; where it goes must be there.
    const size_t slash = spec.merge_out->rfind('/');
    LL_RETURN_IF_ERROR(
        CheckPath("merge_out", spec.merge_out->substr(0, std::max<size_t>(slash, 1)), options));
  }
  if (spec.adapter.has_value() && !request.source.has_value()) {
    LL_RETURN_IF_ERROR(CheckPath("adapter", *spec.adapter, options));
  }
  if (request.spec.has_tokenizer())
    LL_RETURN_IF_ERROR(CheckPath("tokenizer", request.spec.tokenizer(), options));

  LL_RETURN_IF_ERROR(ResolveGpuTypes(view, spec));
  ModelFacts facts;
  if (model.config != nullptr) {
    facts.parameter_count = model.config->ParameterCount();
    facts.max_position_embeddings = model.config->max_position_embeddings;
  }
  LL_ASSIGN_OR_RETURN(JobSpec resolved, Resolve(spec, facts));
  if (model.config != nullptr && kind == "train" && resolved.model.has_value()) {
    LL_RETURN_IF_ERROR(CheckContextLength(*model.config, *resolved.context_length,
                                          resolved.original_context_length.value_or(0)));
  }
  // From here on the path stands for the name: what was learnt of a model goes by it.
  if (!model.path.empty()) resolved.model = model.path;
  if (model.config != nullptr && kind == "train") {
    LL_RETURN_IF_ERROR(Plan(model.config, spec, view, options, resolved, out.core, out.forecast));
  } else {
    out.forecast.set_explanation(kind == "train"
                                     ? "the model's shape is not known here; the worker checks it"
                                     : absl::StrCat("jobs of kind ", kind, " are not forecast"));
  }
  FillCore(resolved, request.now, out.core);
  out.core.other_kinds = KindsLeftOut(view, resolved, out.forecast.bytes_per_rank());
  out.resolved = SpecToProto(resolved);
  auto payload = std::make_shared<JobPayload>();
  payload->spec = SerializeDeterministic(request.spec);
  payload->resolved_spec = SerializeDeterministic(out.resolved);
  payload->forecast = SerializeDeterministic(out.forecast);
  out.payload = std::move(payload);
  return out;
}

}  // namespace ll
