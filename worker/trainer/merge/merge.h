// From a base and an adapter to a folder that stands alone: W + scale * B A, the trained embedding
// and norms, the scaled positions, the tokenizer and a model card, as Hugging Face's programs read
// it. Reading order: merge_inputs.h, nf4_values.h, this, verify.h, model_card.h.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/merge/merge_inputs.h"

namespace ll {

// For StopOnInterrupt, of Merge and Publish.
inline constexpr char kMergeInterrupted[] =
    "ll-trainer: interrupted: takes away what it wrote and ends; a second Ctrl-C ends it at once\n";

// Writes request.out. Weights are computed in fp32 and rounded once; no more than one is in memory.
// The folder appears whole under its name (base/new_folder.h). Returns what it wrote:
//   {"out", "model", "adapter", "onto", "dtype", "quantization", "context_length", "parameters",
//    "bytes", "shards", "seconds", "peak_bytes", "verify": {…} where asked for}
// peak_bytes is that of writing, before anything is verified. `stop` is asked between weights;
// true ends with Cancelled. Errors as of OpenMergeInputs; the disk's have the class
// infrastructure.
absl::StatusOr<nlohmann::ordered_json> Merge(const MergeRequest& request, EventSink& events,
                                             const std::function<bool()>& stop);

// Of a spec of kind merge, resolved; a name in merge_out lies below `job_folder`.
absl::StatusOr<MergeRequest> MergeRequestOf(const JobSpec& resolved, const std::string& job_folder);

// Copies a model folder to `to`, a path or s3://BUCKET/PREFIX, and checks every file's hash there;
// `to` appears whole (in a bucket: with config.json, its last object). Errors name the flag: no
// model folder, `to` exists.
absl::StatusOr<nlohmann::ordered_json> Publish(const std::string& from, const std::string& to,
                                               bool overwrite, const std::function<bool()>& stop);

}  // namespace ll
