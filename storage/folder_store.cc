// Objects as files below a folder, for a file system that all hosts see.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/new_folder.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "storage/object_store.h"

namespace ll {
namespace {

namespace fs = std::filesystem;

// Files that are being written; a hidden name is no key, so nobody takes one for an object.
constexpr absl::string_view kPartial = ".partial-";

class FolderStore : public ObjectStore {
 public:
  explicit FolderStore(std::string root) : root_(std::move(root)) {}

  absl::Status PutFile(const std::string& key, const std::string& path,
                       const std::string& sha256) override {
    LL_ASSIGN_OR_RETURN(const std::string partial, NewPartial(key));
    const auto put = [&]() -> absl::Status {
      LL_RETURN_IF_ERROR(CopyFileDurably(path, partial));
      LL_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(partial));
      if (found != sha256) {
        return absl::DataLossError(
            absl::StrCat(path, ": expected sha256 ", sha256, ", found ", found));
      }
      return RenameDurably(partial, PathOf(key));
    };
    const absl::Status status = put();
    if (!status.ok()) unlink(partial.c_str());
    return status;
  }

  absl::Status PutText(const std::string& key, absl::string_view bytes, PutMode mode) override {
    LL_ASSIGN_OR_RETURN(const std::string partial, NewPartial(key));
    absl::Status status = WriteFileAtomic(partial, bytes);
    if (status.ok() && mode == PutMode::kReplace) {
      status = RenameDurably(partial, PathOf(key));
    } else if (status.ok()) {
      // A link, unlike a rename, fails where the name is taken.
      if (link(partial.c_str(), PathOf(key).c_str()) != 0) {
        status = ErrnoStatus(errno, "cannot create", PathOf(key));
      } else {
        status = SyncDir(fs::path(PathOf(key)).parent_path().string());
      }
    }
    unlink(partial.c_str());
    return status;
  }

  absl::StatusOr<std::string> GetText(const std::string& key, int64_t max_bytes) override {
    LL_RETURN_IF_ERROR(Check(key));
    LL_ASSIGN_OR_RETURN(const int64_t size, FileSize(PathOf(key)));
    if (size > max_bytes) {
      return absl::OutOfRangeError(
          absl::StrCat(PathOf(key), ": expected at most ", max_bytes, " bytes, found ", size));
    }
    return ReadFile(PathOf(key));
  }

  absl::Status GetFile(const std::string& key, const std::string& path) override {
    LL_RETURN_IF_ERROR(Check(key));
    if (FileExists(path)) return ErrnoStatus(EEXIST, "cannot create", path);
    const absl::Status status = CopyFileDurably(PathOf(key), path);
    if (!status.ok()) unlink(path.c_str());
    return status;
  }

  absl::StatusOr<bool> Holds(const std::string& key, int64_t size_bytes,
                             const std::string& sha256) override {
    LL_RETURN_IF_ERROR(Check(key));
    const auto size = FileSize(PathOf(key));
    if (absl::IsNotFound(size.status())) return false;
    LL_RETURN_IF_ERROR(size.status());
    if (*size != size_bytes) return false;
    LL_ASSIGN_OR_RETURN(const std::string found, Sha256HexOfFile(PathOf(key)));
    return found == sha256;
  }

  absl::StatusOr<std::vector<ObjectInfo>> List(const std::string& prefix) override {
    std::vector<ObjectInfo> objects;
    LL_RETURN_IF_ERROR(Walk([&](const std::string& key, const fs::directory_entry& entry) {
      if (!absl::StartsWith(key, prefix) || !CheckObjectKey(key).ok()) return;
      std::error_code error;
      const auto size = entry.file_size(error);
      if (!error) objects.push_back({key, static_cast<int64_t>(size)});  // else removed just now
    }));
    std::sort(objects.begin(), objects.end(),
              [](const ObjectInfo& a, const ObjectInfo& b) { return a.key < b.key; });
    return objects;
  }

  absl::Status Delete(const std::string& key) override {
    LL_RETURN_IF_ERROR(Check(key));
    if (unlink(PathOf(key).c_str()) != 0 && errno != ENOENT)
      return ErrnoStatus(errno, "cannot remove", PathOf(key));
    // Empty folders go too: what a store of objects does not have. rmdir refuses full ones.
    for (fs::path folder = fs::path(PathOf(key)).parent_path(); folder.string() != root_;
         folder = folder.parent_path()) {
      if (rmdir(folder.c_str()) != 0) break;
    }
    return absl::OkStatus();
  }

  absl::Status SweepPartial(const std::function<bool(const std::string&)>& doomed) override {
    std::vector<std::string> paths;
    LL_RETURN_IF_ERROR(Walk([&](const std::string& key, const fs::directory_entry& entry) {
      if (absl::StartsWith(entry.path().filename().string(), kPartial) && doomed(key))
        paths.push_back(entry.path().string());
    }));
    for (const std::string& path : paths) LL_RETURN_IF_ERROR(RemoveTree(path));
    return absl::OkStatus();
  }

  void Cancel() override { cancelled_ = true; }
  const std::string& uri() const override { return root_; }

 private:
  absl::Status Check(const std::string& key) const {
    if (cancelled_) return absl::CancelledError(absl::StrCat(root_, ": cancelled"));
    return CheckObjectKey(key);
  }
  std::string PathOf(const std::string& key) const { return absl::StrCat(root_, "/", key); }

  // A path in the object's folder, which is made.
  absl::StatusOr<std::string> NewPartial(const std::string& key) const {
    LL_RETURN_IF_ERROR(Check(key));
    const fs::path path(PathOf(key));
    LL_RETURN_IF_ERROR(MakeDirs(path.parent_path().string()));
    return absl::StrCat(path.parent_path().string(), "/", kPartial, RandomHex(SystemRandom(), 8));
  }

  template <typename Visit>
  absl::Status Walk(const Visit& visit) const {
    if (cancelled_) return absl::CancelledError(absl::StrCat(root_, ": cancelled"));
    // Folder by folder: one that another process removes meanwhile ends its own part alone.
    std::vector<std::string> folders = {root_};
    while (!folders.empty()) {
      const std::string folder = std::move(folders.back());
      folders.pop_back();
      std::error_code error, gone;
      for (fs::directory_iterator it(folder, error), end; !error && it != end;
           it.increment(error)) {
        if (it->is_directory(gone) && !it->is_symlink(gone)) {
          folders.push_back(it->path().string());
        } else if (it->is_regular_file(gone)) {
          visit(it->path().string().substr(root_.size() + 1), *it);
        }
      }
      if (error && error.value() != ENOENT)
        return ErrnoStatus(error.value(), "cannot list", folder);
    }
    return absl::OkStatus();
  }

  const std::string root_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace

std::unique_ptr<ObjectStore> OpenFolderStore(const std::string& root) {
  return std::make_unique<FolderStore>(root);
}

}  // namespace ll
