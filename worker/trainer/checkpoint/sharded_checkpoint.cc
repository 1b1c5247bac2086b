#include "worker/trainer/checkpoint/sharded_checkpoint.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/background.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/weights/tensor_io.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {

ShardedCheckpoint::~ShardedCheckpoint() {
  if (thread_.joinable()) thread_.join();
}

// Rank 0 leaves a file of a name that it tells the others, who look for it. Network file systems
// may show it a little later.
absl::Status ShardedCheckpoint::CheckFolder() {
  constexpr int kLooks = 50;
  constexpr absl::Duration kBetween = absl::Milliseconds(100);
  at::Tensor name = at::zeros({1}, at::kDouble);
  absl::Status made;
  const auto path = [&] { return SharedMark(root_, static_cast<int64_t>(name[0].item<double>())); };
  if (comm_.rank() == 0) {
    name[0] = static_cast<double>(absl::ToUnixMicros(RealClock().Now()));
    made = WriteFileAtomic(path(), "");
  }
  LL_RETURN_IF_ERROR(comm_.Broadcast(name));
  at::Tensor blind = at::zeros({2}, at::kDouble);  // ranks that do not see it, sum of their numbers
  for (int look = 0; comm_.rank() != 0 && !FileExists(path()); ++look) {
    if (look == kLooks) {
      blind[0] = 1.0;
      blind[1] = static_cast<double>(comm_.rank());
      break;
    }
    absl::SleepFor(kBetween);
  }
  LL_RETURN_IF_ERROR(comm_.AllReduceSum({blind}));
  LL_RETURN_IF_ERROR(made);
  if (comm_.rank() == 0) RemoveTree(path()).IgnoreError();
  const int64_t ranks = static_cast<int64_t>(blind[0].item<double>());
  if (ranks == 0) return absl::OkStatus();
  const std::string who = ranks == 1
                              ? absl::StrCat("rank ", static_cast<int64_t>(blind[1].item<double>()))
                              : absl::StrCat(ranks, " ranks");
  return FieldStatus(absl::StatusCode::kFailedPrecondition, "zero_stage",
                     absl::StrCat("each rank writes its part of a checkpoint, and ", who,
                                  " cannot see rank 0's folder ", root_),
                     "put the job store on storage that all hosts share, or set zero_stage: 0");
}

absl::Status ShardedCheckpoint::Start(NamedTensors mine, CheckpointContents rest) {
  Finish().IgnoreError();  // its failure has been reported; an absent rank fails the next line
  // Rank 0 has also removed what it will of older folders: nobody writes beside that.
  at::Tensor barrier = at::zeros({1}, at::kDouble);
  LL_RETURN_IF_ERROR(comm_.AllReduceSum({barrier}));
  rest_ = std::move(rest);
  pending_ = true;
  done_ = false;
  const std::string folder = WritingFolder(root_, rest_.step);
  thread_ = std::thread([this, folder, hurry = rest_.hurry, mine = std::move(mine)] {
    if (!hurry) StayInBackground();
    written_ = MakeDirs(folder);
    if (written_.ok()) {
      written_ = WriteSafetensors(
          folder + "/" + OptimizerFileName(comm_.rank(), comm_.world_size()), mine);
    }
    done_ = true;
  });
  return absl::OkStatus();
}

PartsWritten ShardedCheckpoint::Mine() const {
  if (!pending_ || !done_) return {};
  return {1.0, written_.ok() ? 0.0 : 1.0};
}

void ShardedCheckpoint::Heard(const PartsWritten& all) {
  if (pending_ && all.done >= comm_.world_size()) Seal(all.failed == 0);
}

void ShardedCheckpoint::Seal(bool complete) {
  if (thread_.joinable()) thread_.join();
  pending_ = false;
  parts_ = complete ? absl::OkStatus()
                    : absl::UnavailableError("a rank could not write its part of the checkpoint");
  if (!written_.ok()) {
    parts_ = written_;
    events_.Warning(absl::StrCat("part ", comm_.rank(), " of the checkpoint of step ", rest_.step,
                                 " could not be written: ", written_.message()));
  }
  if (writer_ == nullptr) return;
  if (complete) {
    writer_->Start(std::move(rest_));
  } else {
    RemoveTree(WritingFolder(root_, rest_.step)).IgnoreError();
    if (written_.ok()) {
      events_.Warning(absl::StrCat("checkpoint of step ", rest_.step,
                                   " could not be written: ", parts_.message()));
    }
  }
}

absl::Status ShardedCheckpoint::Finish() {
  if (pending_) {
    thread_.join();
    const PartsWritten mine = Mine();
    at::Tensor all = at::zeros({2}, at::kDouble);
    all[0] = mine.done;
    all[1] = mine.failed;
    LL_RETURN_IF_ERROR(comm_.AllReduceSum({all}));
    Heard({all[0].item<double>(), all[1].item<double>()});
  }
  if (writer_ == nullptr) return absl::OkStatus();
  const absl::Status sealed = writer_->Wait();
  return parts_.ok() ? sealed : parts_;
}

}  // namespace ll
