#include "worker/trainer/merge/merge.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/json.h"
#include "base/new_folder.h"
#include "base/status_macros.h"
#include "model/weights/hf_writer.h"
#include "model/weights/nf4_io.h"
#include "worker/trainer/device.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/merge/model_card.h"
#include "worker/trainer/merge/out_folder.h"
#include "worker/trainer/merge/verify.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string FileName(const std::string& path) { return fs::path(path).filename().string(); }

// ---- the texts beside the weights

std::string ConfigText(const MergeRequest& request, const MergeInputs& in) {
  json config = LlamaConfigToJson(in.config);
  if (request.quantization == "nf4")
    config["quantization_config"] = Nf4QuantizationConfig(in.config.dtype);
  return config.dump(2) + "\n";
}

// A limit of the old context would stand in the new one's way.
bool RaiseLimit(json& object, const char* key, int64_t context) {
  const json value = object.value(key, json());
  if (!value.is_number() || value.get<double>() >= static_cast<double>(context)) return false;
  object[key] = context;
  return true;
}

absl::Status WriteTokenizerFile(const std::string& path, int64_t context, const std::string& to) {
  const std::string name = FileName(path);
  const char* limit = name == "tokenizer_config.json"    ? "model_max_length"
                      : name == "generation_config.json" ? "max_length"
                                                         : nullptr;
  if (limit == nullptr) return CopyFileDurably(path, to + "/" + name);
  LL_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  auto object = ParseJsonObject(text);
  if (!object.ok()) return Annotate(object.status(), path);
  if (!RaiseLimit(*object, limit, context)) return CopyFileDurably(path, to + "/" + name);
  return WriteFileAtomic(to + "/" + name, object->dump(2) + "\n");
}

// What transformers makes of a config without one.
std::string DefaultGenerationConfig(const json& config) {
  json out = {{"_from_model_config", true}};
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (config.contains(key) && !config[key].is_null()) out[key] = config[key];
  }
  return out.dump(2) + "\n";
}

absl::Status WriteTexts(const MergeRequest& request, const MergeInputs& in, const std::string& to) {
  LL_RETURN_IF_ERROR(WriteFileAtomic(to + "/config.json", ConfigText(request, in)));
  for (const std::string& path : in.tokenizer_files)
    LL_RETURN_IF_ERROR(WriteTokenizerFile(path, in.config.Reach(), to));
  if (!FileExists(to + "/generation_config.json")) {
    const std::string given = in.model + "/generation_config.json";
    LL_RETURN_IF_ERROR(FileExists(given) ? WriteTokenizerFile(given, in.config.Reach(), to)
                                         : WriteFileAtomic(to + "/generation_config.json",
                                                           DefaultGenerationConfig(in.config.raw)));
  }
  for (const char* name : {"LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE", "USE_POLICY.md"}) {
    if (FileExists(in.model + "/" + name))
      LL_RETURN_IF_ERROR(CopyFileDurably(in.model + "/" + name, to + "/" + name));
  }
  return absl::OkStatus();
}

// ---- the merge

nlohmann::ordered_json ResultOf(const MergeRequest& request, const MergeInputs& in,
                                const HfWritten& written, const std::string& out) {
  return {{"out", out},
          {"model", in.model},
          {"adapter", in.adapter},
          {"onto", in.onto},
          {"dtype", in.config.dtype},
          {"quantization", request.quantization},
          {"context_length", in.config.Reach()},
          {"parameters", in.config.ParameterCount()},
          {"bytes", written.bytes},
          {"shards", written.files.size() > 1 ? written.files.size() - 1 : 1}};
}

// An upper bound of what will be written, weights in their dtype.
int64_t BytesNeeded(const MergeRequest& request, const MergeInputs& in) {
  const int64_t element = in.config.dtype == "float32" ? 4 : 2;
  const int64_t bytes = in.config.ParameterCount() * element;
  return request.quantization == "nf4" ? bytes / 2 : bytes;
}

}  // namespace

absl::StatusOr<nlohmann::ordered_json> Merge(const MergeRequest& request, EventSink& events,
                                             const std::function<bool()>& stop) {
  const absl::Duration start = RealClock().Steady();
  events.Phase("load");
  LL_ASSIGN_OR_RETURN(const MergeInputs in, OpenMergeInputs(request));
  LL_ASSIGN_OR_RETURN(NewFolder out, OpenOutFolder("--out", request.out, request.overwrite,
                                                   {in.model, in.checkpoint, request.verify},
                                                   BytesNeeded(request, in)));
  events.Phase("merge", {{"onto", in.onto}, {"dtype", in.config.dtype}});
  LL_ASSIGN_OR_RETURN(const MergeInputs::Weights weights, in.WeightsOnto(in.onto));
  HfWriteOptions options;
  options.dtype = in.config.dtype;
  options.nf4 = request.quantization == "nf4";
  options.max_shard_bytes = request.max_shard_bytes;
  options.stop = stop;
  const auto written = WriteHfWeights(*weights.exact, in.config, out.partial(), options);
  if (!written.ok()) return DiskError(written.status());
  LL_RETURN_IF_ERROR(DiskError(WriteTexts(request, in, out.partial())));
  nlohmann::ordered_json result = ResultOf(request, in, *written, out.path());
  result["seconds"] = absl::ToDoubleSeconds(RealClock().Steady() - start);
  result["peak_bytes"] = PeakMemoryBytes();
  if (!request.verify.empty()) {
    events.Phase("eval");
    LL_ASSIGN_OR_RETURN(result["verify"], VerifyMerge(request, in, out.partial()));
  }
  LL_ASSIGN_OR_RETURN(const Lineage lineage, LineageOf(in));
  LL_ASSIGN_OR_RETURN(const std::string card, ModelCard(request, in, result, lineage));
  LL_RETURN_IF_ERROR(DiskError(WriteFileAtomic(out.partial() + "/README.md", card)));
  if (stop()) return absl::CancelledError("stopped on request");
  LL_RETURN_IF_ERROR(DiskError(out.Commit()));
  return result;
}

absl::StatusOr<MergeRequest> MergeRequestOf(const JobSpec& spec, const std::string& job_folder) {
  MergeRequest request;
  request.model = spec.model.value_or("");
  request.adapter = spec.adapter.value_or("");
  // A checkpoint of method full is the model.
  if (request.adapter.empty()) request.adapter = std::exchange(request.model, "");
  const std::string out = spec.merge_out.value_or("merged");
  request.out = absl::StartsWith(out, "/") ? out : absl::StrCat(job_folder, "/", out);
  request.dtype = spec.merge_dtype.value_or("");
  request.onto = spec.merge_onto.value_or("");
  request.quantization = spec.quantization.value_or("none");
  request.context_length = spec.context_length.value_or(0);
  request.rope = spec.rope.value_or("linear");
  request.verify = spec.eval_data.value_or("");
  request.verify_seq_len = spec.eval_seq_len.value_or(0);
  return request;
}

}  // namespace ll
