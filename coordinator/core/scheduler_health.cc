// Workers out of service: by an operator's word (cordon, drain) or by the evidence of what failed
// there.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/format.h"
#include "coordinator/core/scheduler.h"

namespace ll {

void Scheduler::On(const CordonWorkerEvent& event) {
  auto it = workers_.find(event.worker);
  if (it == workers_.end()) {
    effects_.reply.status = FieldStatus(absl::StatusCode::kNotFound, "worker",
                                        absl::StrCat("there is no worker ", event.worker.value()),
                                        "llctl workers list shows the workers");
    return;
  }
  Worker& worker = it->second;
  worker.cordoned = event.cordon != Cordon::kUncordon;
  worker.draining = event.cordon == Cordon::kDrain;
  worker.cordon_reason.clear();
  if (worker.cordoned) {
    worker.cordon_reason = worker.draining ? "drained" : "cordoned";
    if (!event.user.empty()) absl::StrAppend(&worker.cordon_reason, " by ", event.user);
    if (!event.reason.empty()) absl::StrAppend(&worker.cordon_reason, ": ", event.reason);
  } else {
    worker.faults.clear();  // it gets a new chance
  }
  SaveWorker(worker);
  RefreshSlots(worker);
  schedule_ = true;
  if (worker.draining) DrainGangs(worker);
}

// Whole gangs move: what is left of a gang without its ranks here could not train.
void Scheduler::DrainGangs(const Worker& worker) {
  std::set<int64_t> sequences;
  for (const auto& [slot, use] : worker.uses) {
    if (!use.stray) sequences.insert(Find(use.job)->sequence);
  }
  for (int64_t sequence : sequences) {
    Job& job = *by_sequence_.at(sequence);
    if (job.state != JobState::kStarting && job.state != JobState::kRunning) continue;
    Preempt(job, JobId(),
            absl::StrCat("moves off worker ", worker.name.value(), ", ", worker.cordon_reason));
  }
}

// An attempt failed by infrastructure: counts against the worker of the rank that is the cause.
void Scheduler::NoteFault(const Job& job) {
  if (options_.lemon_jobs <= 0) return;
  const std::optional<int> suspect = Suspect(*job.attempt);
  if (!suspect) return;
  auto it = workers_.find(job.attempt->ranks[*suspect].worker);
  if (it == workers_.end()) return;
  Worker& worker = it->second;
  worker.faults[job.id] = time_.now();
  for (auto fault = worker.faults.begin(); fault != worker.faults.end();) {
    const bool old = time_.now() - fault->second > options_.lemon_window;
    fault = old ? worker.faults.erase(fault) : std::next(fault);
  }
  if (static_cast<int>(worker.faults.size()) < options_.lemon_jobs || !MayCordon(worker)) return;
  worker.cordoned = true;
  worker.cordon_reason = absl::StrCat(
      "cordoned: ", worker.faults.size(), " jobs failed on it by infrastructure within ",
      HumanDuration(options_.lemon_window), " (",
      absl::StrJoin(worker.faults, ", ",
                    [](std::string* out, const auto& fault) { out->append(fault.first.value()); }),
      ")");
  Note(absl::StrCat("worker ", worker.name.value(), " ", worker.cordon_reason));
  SaveWorker(worker);
  RefreshSlots(worker);
  schedule_ = true;
}

// When much of the cluster fails, its workers are hardly to blame, and the last ones are better
// than none: at most a tenth of the workers, but always one, and never the last that takes gangs.
bool Scheduler::MayCordon(const Worker& worker) const {
  if (worker.cordoned) return false;
  size_t known = 0, cordoned = 0;
  for (const auto& [name, other] : workers_) {
    if (other.declared_dead) continue;
    ++known;
    cordoned += other.cordoned;
  }
  return 10 * (cordoned + 1) <= std::max<size_t>(10, known) && cordoned + 1 < known;
}

}  // namespace ll
