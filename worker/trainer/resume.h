// Where training starts: from the beginning, or from a checkpoint.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/setup.h"
#include "worker/trainer/train_loop.h"

namespace ll {

// What determinism depends on besides spec and seed: stored with a checkpoint, compared on resume.
nlohmann::json PlanOf(const Training& training, const Comm& comm);

// Whether two trainings that differ in this spec key may compute different numbers.
bool ChangesTraining(const std::string& key);

// Finds the checkpoint (TrainOptions::resume_from, else the newest good one below
// TrainOptions::out), restores model and optimizer, and returns its state; a fresh state with step
// 0 where there is none. Collective. What was skipped, and what makes the continuation differ from
// an uninterrupted run, become warnings. Errors: the job is not the one that wrote the checkpoint
// (user); an ordered checkpoint that does not verify (infrastructure).
absl::StatusOr<TrainerState> ResumeOrStart(Training& training, Llama& model,
                                           AdamWOptimizer& optimizer, Comm& comm, EventSink& events,
                                           const TrainOptions& options);

}  // namespace ll
