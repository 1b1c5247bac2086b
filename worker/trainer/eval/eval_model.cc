#include "worker/trainer/eval/eval_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/eval/prompt_encoder.h"
#include "worker/trainer/eval/run_retrieval.h"
#include "worker/trainer/setup.h"

namespace ll {
namespace {

using Json = nlohmann::ordered_json;

absl::StatusOr<std::shared_ptr<const TokenFile>> OpenData(const EvalRequest& request,
                                                          const LlamaConfig& config) {
  LL_ASSIGN_OR_RETURN(auto data, OpenTokenFile(request.data, "data", config.vocab_size));
  // Before the model is loaded: a file too short is an error in a millisecond.
  LL_RETURN_IF_ERROR(PlanWindows(data->size(), request.perplexity.seq_len,
                                 request.perplexity.sliding_window, request.perplexity.mode)
                         .status());
  return data;
}

absl::StatusOr<ModelFolders> ResolveForPerplexity(const EvalRequest& given) {
  ModelRequest request = given;
  if (request.context_size <= 0) request.context_size = given.perplexity.seq_len;
  return ResolveModel(request);
}

// The base as it is: no adapter, no further scaling.
absl::StatusOr<ModelFolders> ResolveBase(const EvalRequest& request, const ModelFolders& extended) {
  ModelRequest base = request;
  base.adapter.clear();
  base.context_size = 0;
  // A whole model in the adapter's place has no base but the one that is named.
  if (base.model.empty() && extended.adapter.empty()) {
    return MakeFieldError({"model", "the base to compare with", "nothing",
                           "give --model, the folder the training started from"});
  }
  if (base.model.empty()) base.model = extended.model;
  return ResolveModel(base);
}

absl::StatusOr<Json> EvaluateWithBase(const EvalRequest& request, Comm& comm, EventSink& events) {
  events.Phase("load");
  LL_ASSIGN_OR_RETURN(const ModelFolders folders, ResolveForPerplexity(request));
  LL_ASSIGN_OR_RETURN(const ModelFolders base, ResolveBase(request, folders));
  LL_ASSIGN_OR_RETURN(const auto data, OpenData(request, folders.config));
  PerplexityOptions short_options = request.perplexity;
  short_options.seq_len = std::min(base.config.Reach(), request.perplexity.seq_len);
  short_options.sliding_window = std::min(short_options.sliding_window, short_options.seq_len);
  const auto measure = [&](const ModelFolders& which, bool long_too,
                           Json* long_result) -> absl::StatusOr<PerplexityResult> {
    LL_ASSIGN_OR_RETURN(const auto model, LoadModel(which));
    events.Phase("eval", {{"model", which.adapter.empty() ? which.model : which.adapter}});
    if (long_too) {
      LL_ASSIGN_OR_RETURN(const PerplexityResult result,
                          Perplexity(*model, *data, request.perplexity, comm));
      *long_result = ToJson(result);
    }
    return Perplexity(*model, *data, short_options, comm);
  };
  Json result;
  LL_ASSIGN_OR_RETURN(const PerplexityResult extended, measure(folders, true, &result));
  LL_ASSIGN_OR_RETURN(const PerplexityResult before, measure(base, false, nullptr));
  result["compare_base"] = {{"seq_len", short_options.seq_len},
                            {"perplexity", extended.perplexity},
                            {"base_perplexity", before.perplexity},
                            {"difference", extended.perplexity - before.perplexity},
                            {"nll", extended.nll},
                            {"base_nll", before.nll},
                            {"tokens", before.tokens}};
  return result;
}

absl::StatusOr<Json> EvaluateRetrieval(const EvalRequest& request, Comm& comm, EventSink& events) {
  events.Phase("load");
  LL_ASSIGN_OR_RETURN(const ModelFolders folders, ResolveModel(request));
  const std::string tokenizer = request.tokenizer.empty() ? folders.model : request.tokenizer;
  LL_ASSIGN_OR_RETURN(const PromptEncoder encoder,
                      PromptEncoder::Open(tokenizer, folders.config.vocab_size));
  LL_ASSIGN_OR_RETURN(const auto model, LoadModel(folders));
  events.Phase("eval");
  if (request.task == "passkey") {
    LL_ASSIGN_OR_RETURN(const PasskeyResult result,
                        MeasurePasskey(*model, encoder, request.passkey, comm, events));
    return ToJson(result);
  }
  LL_ASSIGN_OR_RETURN(const TopicsResult result, MeasureTopics(*model, encoder, request.topics,
                                                               request.topic_prompt, comm, events));
  return ToJson(result);
}

}  // namespace

PasskeyOptions PasskeyOptionsOf(const JobSpec& spec) {
  PasskeyOptions options;
  options.lengths = spec.passkey_lengths;
  options.depths = spec.passkey_depths.value_or(options.depths);
  options.max_tokens = spec.passkey_max_tokens.value_or(options.max_tokens);
  options.interval = spec.passkey_interval.value_or(options.interval);
  options.num_tests = spec.eval_num_tests.value_or(options.num_tests);
  return options;
}

absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& spec) {
  EvalRequest request;
  request.task = *spec.eval_task;
  request.model = spec.model.value_or("");
  request.adapter = spec.adapter.value_or("");
  if (request.model.empty() && request.adapter.empty()) {
    return MakeFieldError({"model", "a model folder or an adapter folder", "nothing"});
  }
  request.context_size = spec.eval_context_size.value_or(0);
  request.rope = spec.rope.value_or("linear");
  request.original_context_length = spec.original_context_length.value_or(0);
  request.precision = spec.precision.value_or("auto");
  request.quantization = spec.quantization.value_or("");
  if (request.task != "perplexity") {
    request.tokenizer = spec.tokenizer.value_or("");
    request.passkey = PasskeyOptionsOf(spec);
    request.passkey.seed = static_cast<uint64_t>(*spec.seed);
    request.topics.lengths = spec.topic_lengths;
    request.topics.num_tests = *spec.eval_num_tests;
    request.topics.seed = static_cast<uint64_t>(*spec.seed);
    request.topic_prompt = spec.topic_prompt.value_or("auto");
    return request;
  }
  if (!spec.eval_data)
    return MakeFieldError({"eval_data", "a token file", "nothing", "give data: FILE"});
  request.data = *spec.eval_data;
  request.compare_base = *spec.eval_compare_base;
  request.perplexity.seq_len = *spec.eval_seq_len;
  request.perplexity.sliding_window = *spec.eval_sliding_window;
  request.perplexity.mode = *spec.eval_mode == "exact" ? WindowMode::kExact : WindowMode::kOfficial;
  return request;
}

absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& request, Comm& comm,
                                                    EventSink& events) {
  events.Phase("load");
  LL_ASSIGN_OR_RETURN(const ModelFolders folders, ResolveForPerplexity(request));
  LL_ASSIGN_OR_RETURN(const auto data, OpenData(request, folders.config));
  LL_ASSIGN_OR_RETURN(const auto model, LoadModel(folders));
  events.Phase("eval");
  return Perplexity(*model, *data, request.perplexity, comm);
}

absl::StatusOr<Json> Evaluate(const EvalRequest& request, Comm& comm, EventSink& events) {
  Json result = {{"task", request.task}};
  Json measured;
  if (request.task != "perplexity") {
    LL_ASSIGN_OR_RETURN(measured, EvaluateRetrieval(request, comm, events));
  } else if (request.compare_base) {
    LL_ASSIGN_OR_RETURN(measured, EvaluateWithBase(request, comm, events));
  } else {
    LL_ASSIGN_OR_RETURN(const PerplexityResult perplexity,
                        EvaluatePerplexity(request, comm, events));
    measured = ToJson(perplexity);
  }
  result.update(measured);
  return result;
}

}  // namespace ll
