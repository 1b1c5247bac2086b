// Perplexity over sliding windows of a token file, full causal attention, shared among the ranks.
#pragma once

#include <string>

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
};

struct PerplexityResult {
  double nll =
      0;  // mean over all predictions; all windows have seq_len - 1, so also the mean of means
  double perplexity = 0;  // exp(nll)
  int64_t windows = 0;
  int64_t tokens = 0;  // predictions scored, seq_len - 1 a window
  double seconds = 0;
};
nlohmann::ordered_json ToJson(const PerplexityResult& result);

// Window w is computed by rank w mod world; each window's value is then summed in window order on
// every rank, so the result has the same bits for every number of ranks. Collective. Errors: no
// window fits, a non-finite loss (class nan).
absl::StatusOr<PerplexityResult> Perplexity(Llama& model, const TokenFile& file,
                                            const PerplexityOptions& options, Comm& comm);

}  // namespace ll
