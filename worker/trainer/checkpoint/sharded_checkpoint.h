// Checkpoints of a gang whose ranks each hold a part of the optimizer's state: every rank writes a
// file of its own into one folder, and when all files are on the disk rank 0 adds the rest, hashes
// everything and renames the folder (checkpoint/writer.h). A rank that dies before leaves a folder
// that no resume looks at.
//
// The step loop does not wait for the disks: each rank says with every step's sums whether its file
// is written, and the step at which all have said so is the one at which rank 0 goes on.
#pragma once

#include <atomic>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"

namespace ll {

// What ranks say about their files of the checkpoint under way; sums over ranks.
struct PartsWritten {
  double done = 0;    // 1: the file is on the disk or has failed
  double failed = 0;  // 1: it could not be written; the rank reports why
};

// Not thread-safe. Every rank has one and calls the same functions at the same steps.
class ShardedCheckpoint {
 public:
  // Below `root`, which all ranks see. `writer` is rank 0's, null elsewhere.
  ShardedCheckpoint(std::string root, Comm& comm, EventSink& events, CheckpointWriter* writer)
      : root_(std::move(root)), comm_(comm), events_(events), writer_(writer) {}
  ~ShardedCheckpoint();

  // Whether all ranks see `root` as rank 0 does; FailedPrecondition otherwise. Collective.
  absl::Status CheckFolder();

  // Waits for the one before, then starts to write `mine` as this rank's file. `rest` is what rank
  // 0 adds (ignored elsewhere). Collective.
  absl::Status Start(NamedTensors mine, CheckpointContents rest);
  // This rank's word, to be summed over the ranks.
  PartsWritten Mine() const;
  // The sum of what all ranks said at one moment: once all files are there rank 0 goes on.
  void Heard(const PartsWritten& all);
  // Waits until the last checkpoint is on the disk or given up; on rank 0 the status of it.
  // Collective.
  absl::Status Finish();

 private:
  void Seal(bool complete);

  const std::string root_;
  Comm& comm_;
  EventSink& events_;
  CheckpointWriter* const writer_;

  bool pending_ = false;  // files are being written
  CheckpointContents rest_;
  absl::Status parts_;  // of the last checkpoint's files
  std::thread thread_;
  std::atomic<bool> done_ = false;
  absl::Status written_;  // by thread_; read once done_ is set
};

}  // namespace ll
