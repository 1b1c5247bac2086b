#include "worker/trainer/rollback.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

struct Candidate {
  bool regular = false;  // at a multiple of save_steps
  int64_t step = -1;
  size_t root = 0;

  bool operator<(const Candidate& other) const {
    return std::tie(regular, step, other.root) < std::tie(other.regular, other.step, root);
  }
};

// Best first.
std::vector<Candidate> Candidates(const TrainerState& now, const std::vector<std::string>& roots) {
  std::vector<Candidate> out;
  const int64_t every = *now.spec.save_steps;
  for (size_t root = 0; root < roots.size(); ++root) {
    const auto names = ListDir(roots[root]);
    if (!names.ok()) continue;
    for (const std::string& name : *names) {
      const auto step = CheckpointStep(name);
      if (step && *step <= now.step) out.push_back({every > 0 && *step % every == 0, *step, root});
    }
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

// step < 0: there is none.
Candidate Choose(const TrainerState& now, const std::vector<std::string>& roots,
                 EventSink& events) {
  for (const Candidate& candidate : Candidates(now, roots)) {
    const std::string name = CheckpointName(candidate.step);
    const absl::Status verified = VerifyCheckpoint(roots[candidate.root] + "/" + name);
    if (verified.ok()) return candidate;
    events.Warning(absl::StrCat("skipped damaged checkpoint ", name, ": ", verified.message()));
  }
  return {};
}

// Rank 0 has seen that the checkpoint is whole: one that cannot be read here is not the user's
// doing.
absl::Status OfThisHost(absl::Status status) {
  if (status.ok() || ErrorClassOf(status) != ErrorClass::kUser) return status;
  return WithErrorClass(std::move(status), ErrorClass::kInfrastructure);
}

}  // namespace

absl::StatusOr<TrainerState> RollBack(const TrainerState& now,
                                      const std::vector<std::string>& roots, Comm& comm,
                                      EventSink& events, Llama& model, AdamWOptimizer& optimizer) {
  at::Tensor told = at::zeros({2}, at::kDouble);
  if (comm.rank() == 0) {
    const Candidate chosen = Choose(now, roots, events);
    told[0] = static_cast<double>(chosen.step);
    told[1] = static_cast<double>(chosen.root);
  }
  LL_RETURN_IF_ERROR(comm.Broadcast(told));
  const auto step = static_cast<int64_t>(told[0].item<double>());
  if (step < 0) {
    return WithErrorClass(
        FieldStatus(absl::StatusCode::kFailedPrecondition, "rollback",
                    absl::StrCat("there is no good checkpoint to go back to from step ", now.step),
                    "skip such steps instead (on_nan, on_loss_spike)"),
        ErrorClass::kNotANumber);
  }
  const std::string path =
      roots[static_cast<size_t>(told[1].item<double>())] + "/" + CheckpointName(step);
  auto read = ReadTrainerState(path);
  LL_RETURN_IF_ERROR(OfThisHost(read.status()));
  TrainerState state = *std::move(read);
  LL_RETURN_IF_ERROR(OfThisHost(RestoreTensors(path, model, optimizer)));
  state.rows_skipped = now.rows_skipped + (now.step + 1 - state.step) * *now.spec.global_batch_size;
  state.guard.rollbacks = now.guard.rollbacks + 1;
  state.memory_steps_down = now.memory_steps_down;
  state.spec = now.spec;
  state.plan = now.plan;
  state.build = now.build;
  state.base_fingerprint = now.base_fingerprint;
  return state;
}

}  // namespace ll
