// An evaluation from files: a model folder, perhaps an adapter, a token file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/load_model.h"

namespace ll {

// context_size 0: seq_len.
struct EvalRequest : ModelRequest {
  std::string data;  // token file
  PerplexityOptions perplexity;
};

// From a resolved spec of kind eval. Errors name the key.
absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& resolved);

// Loads the model and measures it. Collective.
absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& request, Comm& comm,
                                                    EventSink& events);

}  // namespace ll
