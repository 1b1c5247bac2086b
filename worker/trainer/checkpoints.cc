#include "worker/trainer/checkpoints.h"

#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/contents.h"
#include "worker/trainer/checkpoint/copies.h"
#include "worker/trainer/checkpoint/remote.h"
#include "worker/trainer/error_class.h"

namespace ll {

Checkpoints::Checkpoints(const Training& training, Llama& model, AdamWOptimizer& optimizer,
                         Comm& comm, EventSink& events, const TrainOptions& options)
    : training_(training),
      model_(model),
      optimizer_(optimizer),
      comm_(comm),
      events_(events),
      options_(options),
      root_(options.out + "/checkpoints") {}

absl::Status Checkpoints::Open(int64_t step, bool divided) {
  if (step > 0 && options_.resume_from.empty()) newest_step_ = step;
  if (comm_.rank() == 0) LL_RETURN_IF_ERROR(OpenWriter(step));
  if (!divided) return absl::OkStatus();
  parts_ = std::make_unique<ShardedCheckpoint>(root_, comm_, events_, writer_.get());
  return parts_->CheckFolder();
}

absl::Status Checkpoints::OpenWriter(int64_t step) {
  const Retention retention = RetentionOf(training_.spec);
  LL_RETURN_IF_ERROR(MakeDirs(root_));
  // What a killed run left half-written, or had no time to remove.
  PruneCheckpoints(root_, step, retention).IgnoreError();
  LL_ASSIGN_OR_RETURN(copier_, OpenCopier(training_.spec, options_.epoch, events_));
  writer_ = std::make_unique<CheckpointWriter>(
      root_, retention,
      [this](const WrittenCheckpoint& written) {
        ReportCheckpoint(events_, written);
        if (copier_ != nullptr && written.sealed.ok())
          copier_->Offer(written.sealed->path, written.step);
      },
      [this] { return copier_ != nullptr ? copier_->InUse() : std::set<int64_t>(); });
  if (copier_ == nullptr) return absl::OkStatus();
  // A run that was killed may not have come to copy its newest, or not to the end of it; of an
  // earlier attempt it belongs among that one's copies, where the half of it is.
  if (newest_step_ >= 0) copier_->Offer(PathOf(newest_step_), newest_step_);
  const auto earlier = EpochOfCheckpoint(options_.resume_from);
  if (earlier && *earlier < options_.epoch &&
      CheckpointStep(std::filesystem::path(options_.resume_from).filename().string()) == step &&
      FileExists(absl::StrCat(options_.resume_from, "/", kCompleteFile))) {
    copier_->Offer(options_.resume_from, step, *earlier);
  }
  return absl::OkStatus();
}

void Checkpoints::Close() {
  parts_.reset();
  writer_.reset();
  copier_.reset();
}

absl::Status Checkpoints::Take(const TrainerState& state, bool final) {
  newest_step_ = state.step;
  if (comm_.rank() == 0) events_.Phase("checkpoint", {{"step", state.step}});
  // Not held in memory twice over: the snapshot before is on disk when the next is taken.
  if (writer_ != nullptr) writer_->Wait().IgnoreError();
  buffers_.Begin();
  SnapshotBuffers* const buffers = final ? nullptr : &buffers_;
  if (parts_ == nullptr) {
    if (writer_ != nullptr)
      writer_->Start(WholeContents(training_, model_, optimizer_, state, buffers));
    return absl::OkStatus();
  }
  comm_.EnterPhase("checkpoint");
  NamedTensors mine = OptimizerTensors(model_.parameters(), optimizer_, buffers);
  CheckpointContents rest;
  if (comm_.rank() == 0) rest = ContentsBesidesParts(training_, model_, state, buffers);
  rest.step = state.step;
  rest.hurry = final;
  return parts_->Start(std::move(mine), std::move(rest));
}

PartsWritten Checkpoints::MyParts() const {
  return parts_ != nullptr ? parts_->Mine() : PartsWritten{};
}

void Checkpoints::HeardOfParts(const PartsWritten& all) {
  if (parts_ != nullptr) parts_->Heard(all);
}

void Checkpoints::Settle() {
  if (parts_ != nullptr) {
    parts_->Finish().IgnoreError();
  } else if (writer_ != nullptr) {
    writer_->Wait().IgnoreError();
  }
}

absl::Status Checkpoints::Finish(absl::Duration copy_timeout) {
  comm_.EnterPhase("checkpoint");
  const absl::Status written = parts_ != nullptr    ? parts_->Finish()
                               : writer_ != nullptr ? writer_->Wait()
                                                    : absl::OkStatus();
  if (copier_ != nullptr) {
    copier_->Finish(copy_timeout).IgnoreError();  // it has told of what failed
    // What stayed because it was being copied.
    PruneAfterCopies(root_, newest_step_, RetentionOf(training_.spec), events_);
  }
  at::Tensor failed = at::full({1}, written.ok() ? 0.0 : 1.0, at::kDouble);
  const absl::Status told = comm_.Broadcast(failed);
  if (!written.ok()) {
    return WithErrorClass(Annotate(written, "the final checkpoint could not be written"),
                          ErrorClass::kInfrastructure);
  }
  LL_RETURN_IF_ERROR(told);
  if (failed[0].item<double>() > 0) {
    return CausedByRank(FieldStatus(absl::StatusCode::kUnavailable, "checkpoint",
                                    "rank 0 could not write the final checkpoint"),
                        0);
  }
  return absl::OkStatus();
}

std::string Checkpoints::PathOf(int64_t step) const {
  return absl::StrCat(root_, "/", CheckpointName(step));
}

std::vector<std::string> Checkpoints::Roots() const {
  std::vector<std::string> roots = {root_};
  if (!options_.resume_from.empty())
    roots.push_back(std::filesystem::path(options_.resume_from).parent_path().string());
  return roots;
}

}  // namespace ll
