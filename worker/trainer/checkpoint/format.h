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
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

inline constexpr char kManifestFile[] = "MANIFEST.json";
inline constexpr char kCompleteFile[] = "COMPLETE";
inline constexpr char kTrainerStateFile[] = "trainer_state.json";
inline constexpr char kOptimizerFile[] = "optimizer-00-of-01.safetensors";
inline constexpr char kAdapterFile[] = "adapter_model.safetensors";
inline constexpr char kAdapterConfigFile[] = "adapter_config.json";

// "step-000100".
std::string CheckpointName(int64_t step);
// The step of such a name; nullopt for any other.
std::optional<int64_t> CheckpointStep(absl::string_view name);

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

// OK when COMPLETE, the manifest and every file agree; else FailedPrecondition with the file and
// what is wrong with it. `manifest_sha256`, unless empty, must be the manifest's own hash.
absl::Status VerifyCheckpoint(const std::string& folder, const std::string& manifest_sha256 = "");

struct FoundCheckpoint {
  std::string path;  // empty: there is none
  int64_t step = 0;
  std::vector<std::string>
      skipped;  // "step-000200: optimizer-….safetensors: expected sha256 …, found …"
};
// The newest checkpoint under `root` that verifies. A missing `root` has none. Errors: `root`
// cannot be read.
absl::StatusOr<FoundCheckpoint> FindNewestCheckpoint(const std::string& root);

// Removes what interrupted writes and removals left behind, and of the checkpoints up to
// `newest_step` all but the newest `keep` (0 = keep all). A later one is a damaged one that
// resuming skipped; it must not displace good ones.
absl::Status PruneCheckpoints(const std::string& root, int64_t newest_step, int64_t keep);

}  // namespace ll
