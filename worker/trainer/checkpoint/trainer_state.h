// trainer_state.json: where a training stands, and what it depends on. Torch-free.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/guard/loss_guard.h"

namespace ll {

// Dropout, row order and initial weights follow from the seed and the step, so there is no
// generator state to keep.
struct TrainerState {
  int64_t step = 0;           // optimizer steps done
  int64_t rows_consumed = 0;  // rows of the data visited, over all passes
  // Rows left out by rollbacks: step k trains on rows k * B + rows_skipped and the B - 1 after it.
  int64_t rows_skipped = 0;
  int64_t tokens_consumed = 0;
  double last_loss = 0;
  // Early stopping: the best perplexity so far (infinite before the first evaluation), and the
  // evaluations since without a better one.
  double best_perplexity = std::numeric_limits<double>::infinity();
  int64_t evaluations_without_gain = 0;
  GuardState guard;
  int64_t memory_steps_down = 0;  // rungs that `spec` is below its start (guard/memory_ladder.h)
  JobSpec spec;                   // resolved
  std::string data_fingerprint;   // of the token file
  // Which weights the adapter was trained on; empty: random ones, or the file does not say.
  std::string base_fingerprint;
  nlohmann::json plan;   // {"data_parallel", "recompute", "threads", "isa", "precision", …}
  nlohmann::json build;  // {"version", "torch"}
};

std::string TrainerStateToText(const TrainerState& state);
// Errors name the file and what is missing or out of range, a spec that does not hold included.
absl::StatusOr<TrainerState> ParseTrainerState(const std::string& text);
absl::StatusOr<TrainerState> ReadTrainerState(const std::string& checkpoint);

}  // namespace ll
