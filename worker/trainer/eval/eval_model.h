// An evaluation from files: a model folder, perhaps an adapter; a token file, or a tokenizer and
// prompts that are made up.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/eval/passkey.h"
#include "worker/trainer/eval/perplexity.h"
#include "worker/trainer/eval/topics.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/load_model.h"

namespace ll {

// context_size 0: seq_len for perplexity, the model's own reach for the others.
struct EvalRequest : ModelRequest {
  std::string task = "perplexity";  // perplexity, passkey, topics

  std::string data;  // perplexity: token file
  PerplexityOptions perplexity;
  bool compare_base = false;  // perplexity: also at the base's own context, beside the base

  std::string tokenizer;  // passkey, topics: folder or file; empty = the model's
  PasskeyOptions passkey;
  TopicsOptions topics;
  std::string topic_prompt = "auto";  // auto, chat, plain
};

// From a resolved spec of kind eval. Errors name the key.
absl::StatusOr<EvalRequest> EvalRequestOf(const JobSpec& resolved);

// What a grid or LongLoRA's protocol of the spec asks for (kind eval, and in a training).
PasskeyOptions PasskeyOptionsOf(const JobSpec& resolved);

// Loads the model and measures it. Collective.
absl::StatusOr<PerplexityResult> EvaluatePerplexity(const EvalRequest& request, Comm& comm,
                                                    EventSink& events);

// Runs the request's task; the result begins with `task`. With compare_base it has `compare_base`:
// the model and its base (no adapter, its own scaling) in windows of the base's context, and how
// much worse extending made the short context. Collective.
absl::StatusOr<nlohmann::ordered_json> Evaluate(const EvalRequest& request, Comm& comm,
                                                EventSink& events);

}  // namespace ll
