#include "worker/trainer/checkpoint/writer.h"

#include <filesystem>

#include "base/background.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "model/weights/tensor_io.h"

namespace ll {

CheckpointWriter::CheckpointWriter(std::string root, Retention retention,
                                   std::function<void(const WrittenCheckpoint&)> on_written,
                                   std::function<std::set<int64_t>()> in_use)
    : root_(std::move(root)),
      retention_(retention),
      on_written_(std::move(on_written)),
      in_use_(std::move(in_use)) {}

CheckpointWriter::~CheckpointWriter() { Wait().IgnoreError(); }

absl::Status CheckpointWriter::Wait() {
  if (thread_.joinable()) thread_.join();
  return last_;
}

void CheckpointWriter::Start(CheckpointContents contents) {
  Wait().IgnoreError();
  thread_ = std::thread([this, contents = std::move(contents)] {
    if (!contents.hurry) StayInBackground();
    const absl::Duration start = RealClock().Steady();
    WrittenCheckpoint written;
    written.step = contents.step;
    written.sealed = Write(contents);
    written.seconds = absl::ToDoubleSeconds(RealClock().Steady() - start);
    if (written.sealed.ok()) {
      // The checkpoint stands; an old one that cannot be removed is not worth failing it.
      auto removed = PruneCheckpoints(root_, contents.step, retention_, in_use_());
      if (removed.ok()) written.removed = *std::move(removed);
    }
    last_ = written.sealed.status();
    on_written_(written);
  });
}

absl::StatusOr<SealedCheckpoint> CheckpointWriter::Write(const CheckpointContents& contents) const {
  const std::string temporary = WritingFolder(root_, contents.step);
  const auto fill = [&]() -> absl::StatusOr<SealedCheckpoint> {
    if (!contents.has_parts) LL_RETURN_IF_ERROR(RemoveTree(temporary));
    LL_RETURN_IF_ERROR(MakeDirs(temporary));
    for (const auto& [name, derive] : contents.derived_files) {
      LL_ASSIGN_OR_RETURN(const NamedTensors tensors, derive(temporary));
      LL_RETURN_IF_ERROR(WriteSafetensors(temporary + "/" + name, tensors));
    }
    for (const auto& [name, tensors] : contents.tensor_files) {
      LL_RETURN_IF_ERROR(WriteSafetensors(temporary + "/" + name, tensors));
    }
    for (const auto& [name, text] : contents.text_files) {
      LL_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/" + name, text));
    }
    for (const std::string& path : contents.copied_files) {
      LL_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
      const std::string name = std::filesystem::path(path).filename().string();
      LL_RETURN_IF_ERROR(WriteFileAtomic(temporary + "/" + name, bytes));
    }
    return SealCheckpoint(temporary, root_, contents.step);
  };
  absl::StatusOr<SealedCheckpoint> sealed = fill();
  if (!sealed.ok()) RemoveTree(temporary).IgnoreError();
  return sealed;
}

}  // namespace ll
