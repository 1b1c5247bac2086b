#include "worker/trainer/checkpoint/remote.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/status_macros.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {
namespace {

// Of "e0001".
std::optional<int64_t> EpochOfName(absl::string_view name) {
  int64_t epoch = 0;
  if (!absl::ConsumePrefix(&name, "e") || !absl::SimpleAtoi(name, &epoch) || epoch <= 0)
    return std::nullopt;
  return epoch;
}

// Epoch, step and file of a key; nullopt for what is no checkpoint's.
struct PlacedFile {
  int64_t epoch = 0, step = 0;
  std::string prefix, file;
};
std::optional<PlacedFile> PlaceOf(const std::string& key) {
  const std::vector<std::string> parts = absl::StrSplit(key, '/');
  if (parts.size() != 2 && parts.size() != 3) return std::nullopt;
  PlacedFile place;
  if (parts.size() == 3) {
    const auto epoch = EpochOfName(parts[0]);
    if (!epoch) return std::nullopt;
    place.epoch = *epoch;
  }
  const auto step = CheckpointStep(parts[parts.size() - 2]);
  if (!step) return std::nullopt;
  place.step = *step;
  place.file = parts.back();
  place.prefix = key.substr(0, key.size() - place.file.size() - 1);
  return place;
}

absl::Status RemoveRemote(ObjectStore& store, const RemoteCheckpoint& checkpoint) {
  // In this order: what is left at any point is no checkpoint.
  LL_RETURN_IF_ERROR(store.Delete(absl::StrCat(checkpoint.prefix, "/", kCompleteFile)));
  for (const std::string& file : checkpoint.files)
    LL_RETURN_IF_ERROR(store.Delete(absl::StrCat(checkpoint.prefix, "/", file)));
  return absl::OkStatus();
}

// OK where COMPLETE was written, also by an earlier try whose answer was lost.
absl::Status WriteComplete(ObjectStore& store, const std::string& key, const std::string& text) {
  const absl::Status status = store.PutText(key, text, PutMode::kOnlyIfAbsent);
  if (!absl::IsAlreadyExists(status)) return status;
  LL_ASSIGN_OR_RETURN(const std::string found, store.GetText(key, 4096));
  return found == text ? absl::OkStatus() : status;
}

// Fetches its files to `folder`, which must be empty. FailedPrecondition: it is damaged.
absl::Status Fetch(ObjectStore& store, const RemoteCheckpoint& checkpoint,
                   const std::string& folder) {
  const auto damaged = [](const absl::Status& status) {
    return absl::FailedPreconditionError(std::string(status.message()));
  };
  const auto text = [&](const char* name) -> absl::Status {
    const auto bytes = store.GetText(absl::StrCat(checkpoint.prefix, "/", name));
    if (absl::IsNotFound(bytes.status()) || absl::IsOutOfRange(bytes.status()))
      return damaged(bytes.status());
    LL_RETURN_IF_ERROR(bytes.status());
    return WriteFileAtomic(absl::StrCat(folder, "/", name), *bytes);
  };
  LL_RETURN_IF_ERROR(text(kCompleteFile));
  LL_RETURN_IF_ERROR(text(kManifestFile));
  LL_ASSIGN_OR_RETURN(const std::string manifest,
                      ReadFile(absl::StrCat(folder, "/", kManifestFile)));
  LL_ASSIGN_OR_RETURN(const std::vector<ManifestFile> files, ParseManifest(manifest));
  for (const ManifestFile& file : files) {
    const absl::Status got = store.GetFile(absl::StrCat(checkpoint.prefix, "/", file.name),
                                           absl::StrCat(folder, "/", file.name));
    if (absl::IsNotFound(got) || absl::IsDataLoss(got)) return damaged(got);
    LL_RETURN_IF_ERROR(got);
  }
  LL_RETURN_IF_ERROR(VerifyCheckpoint(folder));
  if (ManifestStep(manifest) != checkpoint.step) {
    return absl::FailedPreconditionError(
        absl::StrCat(kManifestFile, ": expected step ", checkpoint.step));
  }
  return absl::OkStatus();
}

}  // namespace

std::string RemoteCheckpointPrefix(int64_t epoch, int64_t step) {
  const std::string name = CheckpointName(step);
  return epoch == 0 ? name : absl::StrCat(absl::StrFormat("e%04d", epoch), "/", name);
}

std::optional<int64_t> EpochOfCheckpoint(const std::string& folder) {
  const std::vector<std::string> parts = absl::StrSplit(folder, '/');
  if (parts.size() < 3 || parts[parts.size() - 2] != "checkpoints") return std::nullopt;
  return EpochOfName(parts[parts.size() - 3]);
}

absl::StatusOr<std::vector<RemoteCheckpoint>> ListRemoteCheckpoints(ObjectStore& store) {
  LL_ASSIGN_OR_RETURN(const std::vector<ObjectInfo> objects, store.List(""));
  std::map<std::pair<int64_t, int64_t>, RemoteCheckpoint> found;
  for (const ObjectInfo& object : objects) {
    const auto place = PlaceOf(object.key);
    if (!place) continue;
    RemoteCheckpoint& checkpoint = found[{place->epoch, place->step}];
    checkpoint.epoch = place->epoch;
    checkpoint.step = place->step;
    checkpoint.prefix = place->prefix;
    checkpoint.files.push_back(place->file);
    if (place->file == kCompleteFile) checkpoint.complete = true;
  }
  std::vector<RemoteCheckpoint> out;
  for (auto& [key, checkpoint] : found) out.push_back(std::move(checkpoint));
  return out;
}

absl::StatusOr<CopiedCheckpoint> CopyCheckpoint(ObjectStore& store, const std::string& folder,
                                                int64_t epoch, int64_t step) {
  const std::string prefix = absl::StrCat(RemoteCheckpointPrefix(epoch, step), "/");
  LL_ASSIGN_OR_RETURN(const std::string complete, ReadFile(folder + "/" + kCompleteFile));
  LL_ASSIGN_OR_RETURN(const std::string manifest, ReadFile(folder + "/" + kManifestFile));
  LL_ASSIGN_OR_RETURN(const std::vector<ManifestFile> files, ParseManifest(manifest));
  const auto there = store.GetText(prefix + kCompleteFile, 4096);
  if (there.ok()) {
    // Another one's files are replaced: it must not count while some of them are new.
    if (*there != complete) LL_RETURN_IF_ERROR(store.Delete(prefix + kCompleteFile));
  } else if (!absl::IsNotFound(there.status())) {
    return there.status();
  }
  CopiedCheckpoint copied;
  for (const ManifestFile& file : files) {
    LL_ASSIGN_OR_RETURN(const bool holds,
                        store.Holds(prefix + file.name, file.size_bytes, file.sha256));
    if (holds) continue;
    LL_RETURN_IF_ERROR(
        store.PutFile(prefix + file.name, absl::StrCat(folder, "/", file.name), file.sha256));
    copied.bytes += file.size_bytes;
  }
  LL_RETURN_IF_ERROR(store.PutText(prefix + kManifestFile, manifest));
  LL_RETURN_IF_ERROR(WriteComplete(store, prefix + kCompleteFile, complete));
  copied.bytes += static_cast<int64_t>(manifest.size() + complete.size());
  return copied;
}

absl::StatusOr<std::vector<std::string>> PruneRemoteCheckpoints(ObjectStore& store, int64_t epoch,
                                                                const Retention& retention) {
  LL_ASSIGN_OR_RETURN(std::vector<RemoteCheckpoint> all, ListRemoteCheckpoints(store));
  std::erase_if(all, [epoch](const RemoteCheckpoint& c) { return c.epoch > epoch; });
  std::vector<std::string> removed;
  const auto newest =
      std::find_if(all.rbegin(), all.rend(), [](const RemoteCheckpoint& c) { return c.complete; });
  if (newest == all.rend()) return removed;
  // By step, the newest epoch's copy of each: what an earlier attempt had of a step is superseded.
  std::map<int64_t, const RemoteCheckpoint*> whole;
  for (const RemoteCheckpoint& checkpoint : all) {
    if (checkpoint.complete) whole[checkpoint.step] = &checkpoint;
  }
  std::vector<int64_t> steps;
  for (const auto& [step, checkpoint] : whole) steps.push_back(step);
  const std::vector<int64_t> doomed_steps = StepsToRemove(retention, steps);
  const std::set<int64_t> doomed(doomed_steps.begin(), doomed_steps.end());
  for (const RemoteCheckpoint& checkpoint : all) {
    if (checkpoint.prefix == newest->prefix) break;  // later ones are half: they may be in work
    const bool superseded = checkpoint.complete && whole[checkpoint.step] != &checkpoint;
    if (checkpoint.complete && !superseded && doomed.count(checkpoint.step) == 0) continue;
    LL_RETURN_IF_ERROR(RemoveRemote(store, checkpoint));
    removed.push_back(checkpoint.prefix);
  }
  return removed;
}

absl::Status SweepHalfSent(ObjectStore& store, int64_t epoch, const std::string& keep) {
  return store.SweepPartial([&](const std::string& key) {
    const auto place = PlaceOf(key);
    return place && place->epoch <= epoch && place->prefix != keep;
  });
}

absl::StatusOr<FetchedCheckpoint> FetchNewestCheckpoint(ObjectStore& store, const std::string& root,
                                                        int64_t newer_than) {
  FetchedCheckpoint fetched;
  LL_ASSIGN_OR_RETURN(const std::vector<RemoteCheckpoint> all, ListRemoteCheckpoints(store));
  for (auto it = all.rbegin(); it != all.rend(); ++it) {
    if (!it->complete || it->step <= newer_than) continue;
    const std::string name = CheckpointName(it->step);
    // Swept with the leavings of interrupted writes, should this be interrupted.
    const std::string temporary = absl::StrCat(root, "/.writing-", name);
    LL_RETURN_IF_ERROR(RemoveTree(temporary));
    LL_RETURN_IF_ERROR(MakeDirs(temporary));
    absl::Status status = Fetch(store, *it, temporary);
    if (status.ok()) {
      fetched.path = absl::StrCat(root, "/", name);
      fetched.step = it->step;
      LL_RETURN_IF_ERROR(RemoveTree(fetched.path));  // a damaged one
      LL_RETURN_IF_ERROR(SyncDir(temporary));
      LL_RETURN_IF_ERROR(RenameDurably(temporary, fetched.path));
      return fetched;
    }
    RemoveTree(temporary).IgnoreError();
    if (!absl::IsFailedPrecondition(status)) return status;
    fetched.skipped.push_back(absl::StrCat(it->prefix, ": ", status.message()));
  }
  return fetched;
}

}  // namespace ll
