// Writes checkpoints while training goes on: the step loop hands over a snapshot, a background
// thread makes it durable.
#pragma once

#include <functional>
#include <set>
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
  // Training has ended and waits for it. Otherwise it is written in the background
  // (base/background.h) of a training that goes on.
  bool hurry = false;
  std::vector<std::pair<std::string, NamedTensors>> tensor_files;  // file name, tensors
  std::vector<std::pair<std::string, std::string>> text_files;     // file name, content
  std::vector<std::string> copied_files;  // paths of small files to put beside them
  // Whether the ranks have written files of theirs to WritingFolder(root, step) already; what is
  // made of those when they are all there (file name, from that folder to tensors).
  bool has_parts = false;
  std::vector<
      std::pair<std::string, std::function<absl::StatusOr<NamedTensors>(const std::string&)>>>
      derived_files;
};

struct WrittenCheckpoint {
  int64_t step = 0;
  absl::StatusOr<SealedCheckpoint> sealed = absl::UnknownError("not written");
  double seconds = 0;
  std::vector<int64_t> removed;  // steps that retention let go
};

// Not thread-safe; one write is in flight at a time.
class CheckpointWriter {
 public:
  // Writes below `root`. `on_written` runs on the writing thread after each attempt, good or bad;
  // `in_use` there too: steps that retention must not remove yet. Both must be thread-safe.
  CheckpointWriter(std::string root, Retention retention,
                   std::function<void(const WrittenCheckpoint&)> on_written,
                   std::function<std::set<int64_t>()> in_use);
  ~CheckpointWriter();  // waits for the write in flight

  // Waits for the write in flight, then starts this one.
  void Start(CheckpointContents contents);
  // Waits for the write in flight; the status of the last one.
  absl::Status Wait();

 private:
  absl::StatusOr<SealedCheckpoint> Write(const CheckpointContents& contents) const;

  const std::string root_;
  const Retention retention_;
  const std::function<void(const WrittenCheckpoint&)> on_written_;
  const std::function<std::set<int64_t>()> in_use_;
  std::thread thread_;
  absl::Status last_;  // written by thread_, read after joining it
};

}  // namespace ll
