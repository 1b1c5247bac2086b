// How far a merged model is from the adapter beside its base: perplexity of both and the mean
// Kullback-Leibler divergence of their next-token distributions.
#pragma once

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/merge/merge_inputs.h"

namespace ll {

// Measures the folder `written` (not yet under its final name) on windows of the token file
// request.verify, evenly spread, in fp32 with full attention:
//   {"data", "windows", "seq_len", "tokens",
//    "adapter_on": {"perplexity", "nll"},
//    "merged": [{"onto", "written", "perplexity", "nll", "kl", "max_logit_difference"}, …]}
// "adapter_on" has LoRA apart, on the base as it was trained on. For a quantised base the list has
// both variants, the written one first; the other is made in memory, rounded to the same dtype
// (not quantised). kl is the mean of KL(adapter_on ‖ merged) a token, in nats. Memory: two models
// in fp32 and two windows of logits.
absl::StatusOr<nlohmann::ordered_json> VerifyMerge(const MergeRequest& request,
                                                   const MergeInputs& in,
                                                   const std::string& written);

}  // namespace ll
