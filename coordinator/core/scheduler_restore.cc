// A store that was put back from a backup: what it says of running gangs is old.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {
// Attempts that may have begun between the backup and its restore, whose agents have forgotten
// them: their folders are there, and one epoch writes one folder.
constexpr int64_t kEpochGap = 100;
// A job's epoch is a folder's name; no attempt ever comes near.
constexpr int64_t kMaxEpoch = 900'000;
}  // namespace

// Nothing is known of any rank. An attempt that was under way ends uncharged; the agents that still
// run its ranks, or those of a later one, are told to end them when they come back.
void Scheduler::On(const RestoredEvent& event) {
  const std::string why =
      absl::StrCat("the coordinator was restored from the backup of ", event.backup);
  for (auto& [sequence, owned] : std::map<int64_t, Job*>(by_sequence_)) {
    Job& job = *owned;
    if (IsTerminal(job.state)) continue;
    job.epoch_floor = std::min(std::max(job.epoch, job.epoch_floor) + kEpochGap, kMaxEpoch);
    Touch(job);
    if (!HoldsSlots(job.state)) continue;
    for (size_t i = 0; i < job.attempt->ranks.size(); ++i) {
      if (job.attempt->ranks[i].phase != RankPhase::kExited)
        LoseRank(job, static_cast<int>(i), why, /*stray=*/false);
    }
    if (job.state == JobState::kCancelling || job.state == JobState::kPausing) {
      EndAttempt(job);
      continue;
    }
    if (job.state == JobState::kStarting || job.state == JobState::kRunning)
      SetState(job, JobState::kFinishing, why);
    job.resize_to = 0;
    SetState(job, JobState::kRetrying, why);
    SetState(job, JobState::kQueued, why);  // it did nothing wrong: no back-off
  }
}

// An agent has a later attempt than this store knows, so this store was put back: what comes next
// must be later still.
void Scheduler::LearnEpochs(const AgentHelloEvent& event) {
  for (const HeldGang& gang : event.gangs) {
    auto it = jobs_.find(gang.job);
    if (it == jobs_.end() || gang.epoch > kMaxEpoch) continue;
    Job& job = *it->second;
    if (IsTerminal(job.state) || gang.epoch <= std::max(job.epoch, job.epoch_floor)) continue;
    job.epoch_floor = gang.epoch;
    Touch(job);
  }
}

}  // namespace ll
