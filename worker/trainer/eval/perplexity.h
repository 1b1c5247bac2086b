// Perplexity over sliding windows of a token file, full causal attention, shared among the ranks.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/text/token_file.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/data/windows.h"

namespace ll {

struct PerplexityOptions {
  int64_t seq_len = 2048;
  int64_t sliding_window = 256;  // tokens between window starts
  WindowMode mode = WindowMode::kOfficial;
  int64_t position_buckets = 16;  // of by_position; at least 1
};

// All predictions of tokens at positions [first, last] of a window (0-based; position 0 is never
// predicted), also those that `mode` does not score: where in its context a model is good.
struct PositionBucket {
  int64_t first = 0, last = 0;
  int64_t tokens = 0;
  double nll = 0;  // mean
};

struct PerplexityResult {
  // official: mean over windows of the mean over their predictions; exact: mean over scored tokens.
  double nll = 0;
  double perplexity = 0;  // exp(nll)
  int64_t windows = 0;
  int64_t tokens = 0;  // predictions scored
  double seconds = 0;
  std::vector<PositionBucket> by_position;
};
nlohmann::ordered_json ToJson(const PerplexityResult& result);

// Window w is computed by rank w mod world; each window's value is then summed in window order on
// every rank, so the result has the same bits for every number of ranks. Collective. Errors: no
// window fits, a non-finite loss (class nan).
absl::StatusOr<PerplexityResult> Perplexity(Llama& model, const TokenFile& file,
                                            const PerplexityOptions& options, Comm& comm);

}  // namespace ll
