// Checkpoints in an object store. Torch-free.
//
//   URI/[eNNNN/]step-000100/adapter_model.safetensors, …, MANIFEST.json, COMPLETE
//
// The files are those of checkpoint/format.h. Each attempt of a job (its epoch, 0 stand-alone)
// writes below a prefix of its own, so that a forgotten trainer cannot spoil a newer attempt's
// copies. COMPLETE is written last and removed first, so whatever is cut short at whatever point
// leaves every checkpoint whole or not counted, and the newest whole one is never removed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/object_store.h"
#include "worker/trainer/checkpoint/retention.h"

namespace ll {

// One in the store. A later epoch's is newer than an earlier one's, whatever their steps.
struct RemoteCheckpoint {
  int64_t epoch = 0, step = 0;
  std::string prefix;              // "e0001/step-000100"
  std::vector<std::string> files;  // in it
  bool complete = false;           // COMPLETE is there
};

// "e0001/step-000100", or "step-000100" of epoch 0.
std::string RemoteCheckpointPrefix(int64_t epoch, int64_t step);

// The attempt that wrote the local checkpoint folder "…/e0001/checkpoints/step-000100"; nullopt
// where the path says none.
std::optional<int64_t> EpochOfCheckpoint(const std::string& folder);

// All below the store's root, oldest first.
absl::StatusOr<std::vector<RemoteCheckpoint>> ListRemoteCheckpoints(ObjectStore& store);

struct CopiedCheckpoint {
  int64_t bytes = 0;  // that went over the wire; files already there do not
};

// Copies the sealed checkpoint `folder` to its place under `epoch`. One that is there already, from
// an attempt that was cut short or of other content, is completed or replaced. Errors: the
// store's; AlreadyExists where another writer has just completed another checkpoint there.
absl::StatusOr<CopiedCheckpoint> CopyCheckpoint(ObjectStore& store, const std::string& folder,
                                                int64_t epoch, int64_t step);

// Removes, of whole checkpoints of `epoch` and earlier ones, what `retention` does not keep and
// what a newer epoch has again, and half ones older than the newest whole one. Returns the prefixes
// that went.
absl::StatusOr<std::vector<std::string>> PruneRemoteCheckpoints(ObjectStore& store, int64_t epoch,
                                                                const Retention& retention);

// Gives up what killed writers left half-sent of checkpoints of `epoch` and earlier ones, but of
// `keep`, a prefix: the copy that is to be continued.
absl::Status SweepHalfSent(ObjectStore& store, int64_t epoch, const std::string& keep);

struct FetchedCheckpoint {
  std::string path;  // the local folder; empty: there is none
  int64_t step = 0;
  std::vector<std::string> skipped;  // "e0001/step-000200: MANIFEST.json: expected …"
};

// Fetches the newest whole checkpoint whose hashes hold to `root`/step-NNNNNN; one whose step is
// not above `newer_than` is left alone. Errors: the store cannot be read (a worse checkpoint is not
// taken because of that), `root` cannot be written.
absl::StatusOr<FetchedCheckpoint> FetchNewestCheckpoint(ObjectStore& store, const std::string& root,
                                                        int64_t newer_than);

}  // namespace ll
