#include "base/new_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr char kPartial[] = ".partial-";

std::string ParentOf(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// A locked open folder; -1 and `busy` where another process holds it.
absl::StatusOr<int> LockFolder(const std::string& path, bool& busy) {
  const int fd = open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  busy = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (!busy) return fd;
  close(fd);
  return -1;
}

// Removes what dead processes left of `path`; a living one's is an error.
absl::Status RemoveLeftovers(const std::string& field, const std::string& path) {
  const std::string parent = ParentOf(path);
  const std::string prefix =
      absl::StrCat(std::filesystem::path(path).filename().string(), kPartial);
  LL_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(parent));
  for (const std::string& name : names) {
    if (!absl::StartsWith(name, prefix)) continue;
    const std::string leftover = absl::StrCat(parent, "/", name);
    if (!IsDirectory(leftover)) continue;
    bool busy = false;
    LL_ASSIGN_OR_RETURN(const int fd, LockFolder(leftover, busy));
    if (busy) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, field,
                         absl::StrCat("another process is writing ", path),
                         "wait for it, or give another folder");
    }
    const absl::Status removed = RemoveTree(leftover);
    close(fd);
    LL_RETURN_IF_ERROR(removed);
  }
  return absl::OkStatus();
}

absl::Status Exists(const std::string& field, const std::string& path) {
  return MakeFieldError({field, "a folder that does not exist", path,
                         "choose another name, or --overwrite to replace it"},
                        absl::StatusCode::kAlreadyExists);
}

}  // namespace

absl::StatusOr<NewFolder> NewFolder::Create(const std::string& field, const std::string& path,
                                            bool overwrite) {
  std::string clean = std::filesystem::path(path).lexically_normal().string();
  while (clean.size() > 1 && clean.back() == '/') clean.pop_back();
  const std::string name = std::filesystem::path(clean).filename().string();
  if (name.empty() || name == "." || name == "..")
    return MakeFieldError({field, "the path of a folder to write", path});
  NewFolder folder(field, clean, overwrite);
  LL_RETURN_IF_ERROR(folder.Open());
  return folder;
}

absl::Status NewFolder::Open() {
  const std::string parent = ParentOf(path_);
  LL_RETURN_IF_ERROR(MakeDirs(parent));
  if (FileExists(path_) && !overwrite_) return Exists(field_, path_);
  // While the parent is locked nobody can take a folder that is not locked yet for a leftover.
  const int parent_fd = open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent_fd < 0) return ErrnoStatus(errno, "cannot open", parent);
  const absl::Cleanup unlock = [parent_fd] { close(parent_fd); };
  while (flock(parent_fd, LOCK_EX) != 0 && errno == EINTR) {
  }
  LL_RETURN_IF_ERROR(RemoveLeftovers(field_, path_));
  const std::string partial = absl::StrCat(path_, kPartial, getpid());
  if (mkdir(partial.c_str(), 0777) != 0) return ErrnoStatus(errno, "cannot create folder", partial);
  partial_ = partial;
  bool busy = false;
  LL_ASSIGN_OR_RETURN(lock_fd_, LockFolder(partial_, busy));
  return absl::OkStatus();
}

NewFolder::NewFolder(NewFolder&& other) noexcept
    : field_(std::move(other.field_)),
      path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, "")),
      overwrite_(other.overwrite_),
      lock_fd_(std::exchange(other.lock_fd_, -1)) {}

NewFolder::~NewFolder() {
  if (!partial_.empty()) RemoveTree(partial_).IgnoreError();
  if (lock_fd_ >= 0) close(lock_fd_);
}

absl::Status NewFolder::Commit() {
  LL_RETURN_IF_ERROR(SyncDir(partial_));
  // One call that fails where the name is taken: nothing is lost to a race.
  if (renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_NOREPLACE) == 0) {
    partial_.clear();
    return SyncDir(ParentOf(path_));
  }
  if (errno == EEXIST && !overwrite_) return Exists(field_, path_);
  if (errno == EEXIST) {
    // Old and new swap names; the old one is then a leftover like any other.
    if (renameat2(AT_FDCWD, partial_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) != 0)
      return ErrnoStatus(errno, "cannot replace", path_);
    LL_RETURN_IF_ERROR(SyncDir(ParentOf(path_)));
    RemoveTree(std::exchange(partial_, "")).IgnoreError();
    return absl::OkStatus();
  }
  if (errno != EINVAL && errno != ENOSYS) return ErrnoStatus(errno, "cannot rename to", path_);
  // A file system without these flags: the plain call replaces nothing but an empty folder.
  if (FileExists(path_)) {
    return FieldStatus(absl::StatusCode::kUnimplemented, field_,
                       absl::StrCat("the file system of ", path_, " cannot swap two folders"),
                       "remove the old folder first, or give another one");
  }
  LL_RETURN_IF_ERROR(RenameDurably(partial_, path_));
  partial_.clear();
  return absl::OkStatus();
}

absl::Status CopyFileDurably(const std::string& from, const std::string& to) {
  std::error_code error;
  std::filesystem::copy_file(from, to, std::filesystem::copy_options::overwrite_existing, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("cannot copy ", from, " to"), to);
  return SyncFile(to);
}

}  // namespace ll
