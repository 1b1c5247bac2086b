// An evaluation from files: a model folder, perhaps an adapter, a token file.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/event_sink.h"

namespace ll {

struct EvalRequest {
  std::string
      model;  // folder; may be empty where the adapter folder names its base or is a whole model
  std::string adapter;                  // adapter folder or checkpoint; may be empty
  std::string data;                     // token file
  int64_t context_size = 0;             // context the positions are scaled to; 0 = seq_len
  std::string rope = "linear";          // how
  int64_t original_context_length = 0;  // overrides what the config states; 0 = does not
  std::string precision = "auto";       // fp32, bf16; auto = fp32 (this is a CPU build)
  // none, nf4; empty = as the model folder is stored and as the adapter was trained.
  std::string quantization;
  PerplexityOptions perplexity;
};

// From a resolved spec of kind eval. Errors name the key.
absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& resolved);

// Loads model and adapter (merged into it, or beside it where the base is NF4) and measures. The
// config is the adapter folder's where it has one, so that the scaling it was trained with stays;
// reaching further extends it. Collective.
absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& request, Comm& comm,
                                                    EventSink& events);

}  // namespace ll
