// Event files for TensorBoard: DIR/JOB_ID/events.out.tfevents.TIME.ll-eEPOCH, one for each attempt
// and process that watched it. `tensorboard --logdir DIR` shows the jobs as runs.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "tracker/tracker.h"

namespace ll {

class TensorBoardTracker : public Tracker {
 public:
  explicit TensorBoardTracker(std::string dir) : dir_(std::move(dir)) {}
  std::string name() const override { return "tensorboard"; }
  absl::Status Take(const std::vector<TrackerEvent>& batch) override;

 private:
  // The file that an attempt's values go into.
  absl::StatusOr<std::string> FileOf(const TrackerEvent& event);

  const std::string dir_;
  std::map<std::pair<std::string, int64_t>, std::string> files_;  // by job and epoch
};

}  // namespace ll
