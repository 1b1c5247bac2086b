// Writes checkpoints while training goes on: the step loop hands over a snapshot, a background
// thread makes it durable.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

// Everything a checkpoint holds. The tensors are the snapshot: nobody writes them any more.
struct CheckpointContents {
  int64_t step = 0;
  std::vector<std::pair<std::string, NamedTensors>> tensor_files;  // file name, tensors
  std::vector<std::pair<std::string, std::string>> text_files;     // file name, content
  std::vector<std::string> copied_files;  // paths of small files to put beside them
};

struct WrittenCheckpoint {
  int64_t step = 0;
  absl::StatusOr<SealedCheckpoint> sealed = absl::UnknownError("not written");
  double seconds = 0;
};

// Not thread-safe; one write is in flight at a time.
class CheckpointWriter {
 public:
  // Writes below `root`, keeping the newest `keep` (0 = all). `on_written` runs on the writing
  // thread after each attempt, good or bad; it must be thread-safe.
  CheckpointWriter(std::string root, int64_t keep,
                   std::function<void(const WrittenCheckpoint&)> on_written);
  ~CheckpointWriter();  // waits for the write in flight

  // Waits for the write in flight, then starts this one.
  void Start(CheckpointContents contents);
  // Waits for the write in flight; the status of the last one.
  absl::Status Wait();

 private:
  absl::StatusOr<SealedCheckpoint> Write(const CheckpointContents& contents) const;

  const std::string root_;
  const int64_t keep_;
  const std::function<void(const WrittenCheckpoint&)> on_written_;
  std::thread thread_;
  absl::Status last_;  // written by thread_, read after joining it
};

}  // namespace ll
