#include "worker/trainer/checkpoint/format.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/json.h"
#include "base/sha256.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr absl::string_view kPrefix = "step-";
constexpr absl::string_view kWriting = ".writing-";
constexpr absl::string_view kRemoving = ".removing-";
constexpr absl::string_view kShared = ".shared-";

absl::Status Damaged(absl::string_view file, absl::string_view expected, absl::string_view found) {
  return MakeFieldError({file, expected, found}, absl::StatusCode::kFailedPrecondition);
}

absl::Status VerifyFile(const std::string& folder, const ManifestFile& file) {
  const std::string path = folder + "/" + file.name;
  const auto size = FileSize(path);
  if (!size.ok()) return Damaged(file.name, "a file", "none");
  if (*size != file.size_bytes) {
    return Damaged(file.name, absl::StrCat(file.size_bytes, " bytes"),
                   absl::StrCat(*size, " bytes"));
  }
  LL_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path));
  if (sha256 != file.sha256) return Damaged(file.name, "sha256 " + file.sha256, sha256);
  return absl::OkStatus();
}

// Out of sight under another name first: a removal cut short leaves nothing that looks like a
// checkpoint.
absl::Status RemoveCheckpoint(const std::string& root, const std::string& name) {
  const std::string doomed = absl::StrCat(root, "/", kRemoving, name);
  LL_RETURN_IF_ERROR(RemoveTree(doomed));
  LL_RETURN_IF_ERROR(RenameDurably(root + "/" + name, doomed));
  return RemoveTree(doomed);
}

}  // namespace

std::string OptimizerFileName(int rank, int ranks) {
  return absl::StrFormat("optimizer-%02d-of-%02d.safetensors", rank, ranks);
}

bool IsOptimizerFileName(absl::string_view name) {
  return absl::StartsWith(name, "optimizer-") && absl::EndsWith(name, ".safetensors");
}

std::string CheckpointName(int64_t step) { return absl::StrFormat("step-%06d", step); }

std::optional<int64_t> CheckpointStep(absl::string_view name) {
  int64_t step = 0;
  if (!absl::ConsumePrefix(&name, kPrefix) || !absl::SimpleAtoi(name, &step) || step < 0)
    return std::nullopt;
  return step;
}

std::string SharedMark(const std::string& root, int64_t number) {
  return absl::StrCat(root, "/", kShared, number);
}

std::string WritingFolder(const std::string& root, int64_t step) {
  return absl::StrCat(root, "/", kWriting, CheckpointName(step));
}

absl::StatusOr<SealedCheckpoint> SealCheckpoint(const std::string& temporary_folder,
                                                const std::string& root, int64_t step) {
  SealedCheckpoint sealed;
  nlohmann::ordered_json files;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(temporary_folder));
  for (const std::string& name : names) {
    const std::string path = temporary_folder + "/" + name;
    LL_ASSIGN_OR_RETURN(const int64_t size, FileSize(path));
    LL_ASSIGN_OR_RETURN(const std::string sha256, Sha256HexOfFile(path));
    files[name] = {{"size_bytes", size}, {"sha256", sha256}};
    sealed.size_bytes += size;
  }
  const std::string manifest =
      nlohmann::ordered_json{{"version", 1}, {"step", step}, {"files", files}}.dump(1) + "\n";
  sealed.manifest_sha256 = Sha256Hex(manifest);
  LL_RETURN_IF_ERROR(WriteFileAtomic(temporary_folder + "/" + kManifestFile, manifest));
  LL_RETURN_IF_ERROR(
      WriteFileAtomic(temporary_folder + "/" + kCompleteFile, sealed.manifest_sha256 + "\n"));
  sealed.path = root + "/" + CheckpointName(step);
  if (FileExists(sealed.path)) LL_RETURN_IF_ERROR(RemoveCheckpoint(root, CheckpointName(step)));
  LL_RETURN_IF_ERROR(RenameDurably(temporary_folder, sealed.path));
  return sealed;
}

absl::StatusOr<std::vector<ManifestFile>> ParseManifest(absl::string_view text) {
  const auto root = ParseJsonObject(text);
  if (!root.ok())
    return absl::FailedPreconditionError(
        absl::StrCat(kManifestFile, ": ", root.status().message()));
  const nlohmann::json list = root->value("files", nlohmann::json());
  if (!list.is_object()) return Damaged(kManifestFile, "\"files\", an object", JsonExcerpt(list));
  std::vector<ManifestFile> files;
  for (const auto& [name, entry] : list.items()) {
    const nlohmann::json none, object = entry.is_object() ? entry : nlohmann::json::object();
    const nlohmann::json size = object.value("size_bytes", none),
                         hash = object.value("sha256", none);
    // Names must not reach out of the folder.
    if (!IsPlainFileName(name) || !size.is_number_unsigned() || !hash.is_string()) {
      return Damaged(kManifestFile, "size_bytes and sha256 of every file", JsonExcerpt(entry));
    }
    files.push_back({name, size.get<int64_t>(), hash.get<std::string>()});
  }
  return files;
}

int64_t ManifestStep(absl::string_view text) {
  const auto root = ParseJsonObject(text);
  const nlohmann::json step = root.ok() ? root->value("step", nlohmann::json()) : nlohmann::json();
  return step.is_number_integer() ? step.get<int64_t>() : -1;
}

absl::Status VerifyCheckpoint(const std::string& folder, const std::string& manifest_sha256) {
  const auto complete = ReadFile(folder + "/" + kCompleteFile);
  if (!complete.ok()) return Damaged(kCompleteFile, "a file", "none");
  const auto manifest = ReadFile(folder + "/" + kManifestFile);
  if (!manifest.ok()) return Damaged(kManifestFile, "a file", "none");
  const std::string sha256 = Sha256Hex(*manifest);
  if (sha256 != absl::StripSuffix(*complete, "\n")) {
    return Damaged(kManifestFile, absl::StrCat("sha256 ", absl::StripSuffix(*complete, "\n")),
                   sha256);
  }
  if (!manifest_sha256.empty() && sha256 != manifest_sha256) {
    return Damaged(kManifestFile, "sha256 " + manifest_sha256 + " as ordered", sha256);
  }
  LL_ASSIGN_OR_RETURN(const std::vector<ManifestFile> files, ParseManifest(*manifest));
  // A whole checkpoint under another one's name would put a training back, or forward, unseen.
  const auto named = CheckpointStep(std::filesystem::path(folder).filename().string());
  const int64_t step = ManifestStep(*manifest);
  if (named && step >= 0 && step != *named)
    return Damaged(kManifestFile, absl::StrCat("step ", *named), absl::StrCat("step ", step));
  for (const ManifestFile& file : files) LL_RETURN_IF_ERROR(VerifyFile(folder, file));
  return absl::OkStatus();
}

absl::StatusOr<FoundCheckpoint> FindNewestCheckpoint(const std::string& root, int64_t below) {
  FoundCheckpoint found;
  if (!IsDirectory(root)) return found;
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(root));
  std::vector<std::pair<int64_t, std::string>> candidates;
  for (const std::string& name : names) {
    if (const auto step = CheckpointStep(name); step && *step < below)
      candidates.emplace_back(*step, name);
  }
  std::sort(candidates.rbegin(), candidates.rend());
  for (const auto& [step, name] : candidates) {
    const absl::Status status = VerifyCheckpoint(root + "/" + name);
    if (status.ok()) {
      found.path = root + "/" + name;
      found.step = step;
      return found;
    }
    found.skipped.push_back(absl::StrCat(name, ": ", status.message()));
  }
  return found;
}

absl::Status NoAdapterIn(absl::string_view field, const std::string& folder) {
  if (!IsDirectory(folder)) {
    return MakeFieldError({field, "an adapter folder", folder, "there is no such folder"},
                          absl::StatusCode::kNotFound);
  }
  std::string hint;
  for (const std::string& root : {folder, folder + "/checkpoints"}) {
    const auto names = ListDir(root);
    int64_t newest = -1;
    for (const std::string& name : names.ok() ? *names : std::vector<std::string>())
      newest = std::max(newest, CheckpointStep(name).value_or(-1));
    if (newest >= 0)
      hint = absl::StrCat("its newest checkpoint is ", root, "/", CheckpointName(newest));
  }
  return MakeFieldError({field, absl::StrCat("a folder with ", kAdapterConfigFile), folder, hint},
                        absl::StatusCode::kNotFound);
}

absl::StatusOr<std::vector<int64_t>> PruneCheckpoints(const std::string& root, int64_t newest_step,
                                                      const Retention& retention,
                                                      const std::set<int64_t>& in_use) {
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(root));
  std::map<int64_t, std::string> checkpoints;
  std::vector<int64_t> steps, removed;
  for (const std::string& name : names) {
    if (absl::StartsWith(name, kWriting) || absl::StartsWith(name, kRemoving) ||
        absl::StartsWith(name, kShared)) {
      LL_RETURN_IF_ERROR(RemoveTree(root + "/" + name));
    } else if (const auto step = CheckpointStep(name); step && *step <= newest_step) {
      checkpoints[*step] = name;
      steps.push_back(*step);
    }
  }
  for (const int64_t step : StepsToRemove(retention, steps)) {
    if (in_use.count(step) > 0) continue;
    LL_RETURN_IF_ERROR(RemoveCheckpoint(root, checkpoints[step]));
    removed.push_back(step);
  }
  return removed;
}

}  // namespace ll
