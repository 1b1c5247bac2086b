#include "worker/trainer/checkpoint/copier.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "worker/trainer/checkpoint/format.h"
#include "worker/trainer/checkpoint/remote.h"

namespace ll {

CheckpointCopier::CheckpointCopier(std::unique_ptr<ObjectStore> store, int64_t epoch,
                                   Retention retention, Clock& clock,
                                   std::function<void(const CopyReport&)> report)
    : store_(std::move(store)),
      epoch_(epoch),
      retention_(retention),
      clock_(clock),
      report_(std::move(report)),
      thread_([this] { Loop(); }) {}

CheckpointCopier::~CheckpointCopier() {
  {
    const absl::MutexLock lock(&mu_);
    ending_ = true;
    if (running_ || waiting_) store_->Cancel();
  }
  thread_.join();
}

void CheckpointCopier::Offer(const std::string& folder, int64_t step,
                             std::optional<int64_t> epoch) {
  std::optional<Wish> dropped;
  {
    const absl::MutexLock lock(&mu_);
    dropped = std::exchange(waiting_, Wish{folder, step, epoch.value_or(epoch_)});
  }
  if (!dropped) return;
  CopyReport report;
  report.step = dropped->step;
  report.status = absl::AbortedError(absl::StrCat("the copy of step ", step, " comes first"));
  report_(report);
}

absl::Status CheckpointCopier::Finish(absl::Duration timeout) {
  const absl::MutexLock lock(&mu_);
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !waiting_ && !running_; };
  if (done_.AwaitFor(mu_, timeout, idle)) return absl::OkStatus();
  store_->Cancel();
  mu_.Await(absl::Condition(&idle));
  return absl::DeadlineExceededError(
      absl::StrCat("the copy took longer than ", absl::FormatDuration(timeout)));
}

std::set<int64_t> CheckpointCopier::InUse() const {
  const absl::MutexLock lock(&mu_);
  std::set<int64_t> steps;
  if (running_) steps.insert(running_->step);
  if (waiting_) steps.insert(waiting_->step);
  return steps;
}

void CheckpointCopier::Loop() {
  const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return waiting_ || ending_; };
  for (;;) {
    Wish wish;
    {
      const absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&work));
      if (!waiting_) return;
      wish = *waiting_;
      running_ = std::exchange(waiting_, std::nullopt);
    }
    report_(Copy(wish));
    const absl::MutexLock lock(&mu_);
    running_.reset();
    done_.SignalAll();
  }
}

CopyReport CheckpointCopier::Copy(const Wish& wish) {
  const absl::Duration start = clock_.Steady();
  CopyReport report;
  report.step = wish.step;
  const std::string prefix = RemoteCheckpointPrefix(wish.epoch, wish.step);
  // An upload that a killed process left of this very checkpoint is continued; of the others nobody
  // will, and they would be paid for.
  if (!swept_) SweepHalfSent(*store_, epoch_, prefix).IgnoreError();
  swept_ = true;
  const auto copied = CopyCheckpoint(*store_, wish.folder, wish.epoch, wish.step);
  report.status = copied.status();
  if (copied.ok()) {
    report.bytes = copied->bytes;
    report.uri = absl::StrCat(store_->uri(), "/", prefix);
    // The copy stands; an old one that cannot be removed is not worth failing it.
    auto removed = PruneRemoteCheckpoints(*store_, epoch_, retention_);
    if (removed.ok()) report.removed = *std::move(removed);
  }
  report.seconds = absl::ToDoubleSeconds(clock_.Steady() - start);
  return report;
}

}  // namespace ll
