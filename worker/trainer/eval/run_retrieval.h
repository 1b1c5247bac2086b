// Retrieval tests of a loaded model: its generator completes the prompts, greedily and with full
// attention, and keeps what they have in common in its cache.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/eval/passkey.h"
#include "worker/trainer/eval/prompt_encoder.h"
#include "worker/trainer/eval/topics.h"
#include "worker/trainer/event_sink.h"

namespace ll {

// Prompts beyond the model's reach are a warning: positions it was not scaled to. Weights are not
// changed. Collective.
absl::StatusOr<PasskeyResult> MeasurePasskey(Llama& model, const PromptEncoder& encoder,
                                             const PasskeyOptions& options, Comm& comm,
                                             EventSink& events);

// `prompt`: chat (the folder's template, an error where it has none), plain (a transcript), auto
// (chat where there is a template). Collective.
absl::StatusOr<TopicsResult> MeasureTopics(Llama& model, const PromptEncoder& encoder,
                                           const TopicsOptions& options, const std::string& prompt,
                                           Comm& comm, EventSink& events);

}  // namespace ll
