// A checkpoint on disk, torch-free.
//
//   OUT/checkpoints/step-000100/
//     adapter_model.safetensors + adapter_config.json   PEFT loads the folder as it is   (method
//     full: model.safetensors) config.json                                       the base's, with
//     the extended context's scaling optimizer-00-of-01.safetensors                    fp32 masters
//     and AdamW's moments trainer_state.json                                step, data position,
//     seed, plan, resolved spec, build MANIFEST.json                                     {"files":
//     {name: {"size_bytes", "sha256"}}} of all of the above COMPLETE SHA-256 of MANIFEST.json,
//     written last
//
// Life of a folder: written as `.writing-step-000100`, every file synced, MANIFEST and COMPLETE
// last, then renamed. It is removed as `.removing-step-000050`. So a folder named step-* either was
// whole once or is not there.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/trainer/checkpoint/retention.h"

namespace ll {

inline constexpr char kManifestFile[] = "MANIFEST.json";
inline constexpr char kCompleteFile[] = "COMPLETE";
inline constexpr char kTrainerStateFile[] = "trainer_state.json";
inline constexpr char kAdapterFile[] = "adapter_model.safetensors";
inline constexpr char kAdapterConfigFile[] = "adapter_config.json";

// "optimizer-00-of-01.safetensors": what one of the ranks updates.
std::string OptimizerFileName(int rank, int ranks);
// Whether a name is such a one, of any rank.
bool IsOptimizerFileName(absl::string_view name);

// "step-000100".
std::string CheckpointName(int64_t step);
// The step of such a name; nullopt for any other.
std::optional<int64_t> CheckpointStep(absl::string_view name);

// An empty file by which ranks see that they share `root`; PruneCheckpoints takes one that was
// left.
std::string SharedMark(const std::string& root, int64_t number);
// Where the checkpoint of a step is written, until it is whole and renamed.
std::string WritingFolder(const std::string& root, int64_t step);

struct SealedCheckpoint {
  std::string path;
  std::string manifest_sha256;
  int64_t size_bytes = 0;
};

// Hashes every file of `temporary_folder`, writes MANIFEST.json and COMPLETE and renames the folder
// to `root`/CheckpointName(step). A damaged folder of that name is replaced. The files must be
// synced already.
absl::StatusOr<SealedCheckpoint> SealCheckpoint(const std::string& temporary_folder,
                                                const std::string& root, int64_t step);

// What a manifest promises about one file.
struct ManifestFile {
  std::string name;  // in the checkpoint's own folder
  int64_t size_bytes = 0;
  std::string sha256;
};
// The files of a MANIFEST.json's text. FailedPrecondition where it is not one.
absl::StatusOr<std::vector<ManifestFile>> ParseManifest(absl::string_view text);
// Its "step"; -1 where it has none.
int64_t ManifestStep(absl::string_view text);

// OK when COMPLETE, the manifest, every file and the folder's name (where it is a step's) agree;
// else FailedPrecondition with the file and what is wrong with it. `manifest_sha256`, unless empty,
// must be the manifest's own hash.
absl::Status VerifyCheckpoint(const std::string& folder, const std::string& manifest_sha256 = "");

struct FoundCheckpoint {
  std::string path;  // empty: there is none
  int64_t step = 0;
  std::vector<std::string>
      skipped;  // "step-000200: optimizer-….safetensors: expected sha256 …, found …"
};
// The newest checkpoint under `root` that verifies, of those below step `below`. A missing `root`
// has none. Errors: `root` cannot be read.
absl::StatusOr<FoundCheckpoint> FindNewestCheckpoint(
    const std::string& root, int64_t below = std::numeric_limits<int64_t>::max());

// NotFound: `folder` holds no adapter. Names the newest checkpoint where it is the folder that a
// training wrote, or its `checkpoints`.
absl::Status NoAdapterIn(absl::string_view field, const std::string& folder);

// Removes what interrupted writes and removals left behind, and of the checkpoints up to
// `newest_step` what `retention` does not keep, but for the steps `in_use`. A later one is a
// damaged one that resuming skipped; it must not displace good ones. Returns the steps that went.
absl::StatusOr<std::vector<int64_t>> PruneCheckpoints(const std::string& root, int64_t newest_step,
                                                      const Retention& retention,
                                                      const std::set<int64_t>& in_use = {});

}  // namespace ll
