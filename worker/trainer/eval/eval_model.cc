#include "worker/trainer/eval/eval_model.h"

#include "base/field_error.h"
#include "base/status_macros.h"
#include "worker/trainer/setup.h"

namespace ll {

absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& spec) {
  EvalRequest request;
  request.model = spec.model.value_or("");
  request.adapter = spec.adapter.value_or("");
  if (request.model.empty() && request.adapter.empty()) {
    return MakeFieldError({"model", "a model folder or an adapter folder", "nothing"});
  }
  if (!spec.eval_data)
    return MakeFieldError({"eval_data", "a token file", "nothing", "give data: FILE"});
  request.data = *spec.eval_data;
  request.context_size = spec.eval_context_size.value_or(0);
  request.rope = spec.rope.value_or("linear");
  request.original_context_length = spec.original_context_length.value_or(0);
  request.precision = spec.precision.value_or("auto");
  request.quantization = spec.quantization.value_or("");
  request.perplexity.seq_len = *spec.eval_seq_len;
  request.perplexity.sliding_window = *spec.eval_sliding_window;
  request.perplexity.mode = *spec.eval_mode == "exact" ? WindowMode::kExact : WindowMode::kOfficial;
  return request;
}

absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& given, Comm& comm,
                                                    EventSink& events) {
  EvalRequest request = given;
  events.Phase("load");
  if (request.context_size <= 0) request.context_size = request.perplexity.seq_len;
  LL_ASSIGN_OR_RETURN(const ModelFolders folders, ResolveModel(request));
  LL_ASSIGN_OR_RETURN(const auto data,
                      OpenTokenFile(request.data, "data", folders.config.vocab_size));
  // Before the model is loaded: a file too short is an error in a millisecond.
  LL_RETURN_IF_ERROR(WindowStarts(data->size(), request.perplexity.seq_len,
                                  request.perplexity.sliding_window, request.perplexity.mode)
                         .status());
  LL_ASSIGN_OR_RETURN(const auto model, LoadModel(folders));
  events.Phase("eval");
  return Perplexity(*model, *data, request.perplexity, comm);
}

}  // namespace ll
