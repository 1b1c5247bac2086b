#include "tests/sim/mem_files.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ll::sim {
namespace {

std::string FolderOf(const std::string& path) { return path.substr(0, path.rfind('/')); }
absl::Status Full() { return absl::ResourceExhaustedError("disk full"); }

}  // namespace

class MemFiles::Open : public GrowingFile {
 public:
  Open(MemFiles& files, std::shared_ptr<File> file) : files_(files), file_(std::move(file)) {}
  absl::Status Append(absl::string_view bytes) override {
    if (files_.full_) return Full();
    absl::StrAppend(&file_->bytes, bytes);
    return absl::OkStatus();
  }
  absl::Status Sync() override {
    file_->synced = file_->bytes.size();
    return absl::OkStatus();
  }

 private:
  MemFiles& files_;
  const std::shared_ptr<File> file_;
};

MemFiles& MemFiles::At(const std::string& path) {
  return shared_ != nullptr && absl::StartsWith(path, "/shared/") ? *shared_ : *this;
}

std::shared_ptr<MemFiles::File> MemFiles::Find(const std::string& path) {
  const MemFiles& at = At(path);
  const auto found = at.files_.find(path);
  return found == at.files_.end() ? nullptr : found->second;
}

void MemFiles::PowerCut(Random& random) {
  for (auto& [path, file] : files_) {
    const uint64_t unsynced = file->bytes.size() - file->synced;
    file->bytes.resize(file->synced + random.Below(unsynced + 1));
    file->synced = file->bytes.size();
  }
}

absl::Status MemFiles::MayWrite(const std::string& path) {
  if (full_) return Full();
  return IsDirectory(FolderOf(path)) ? absl::OkStatus() : absl::NotFoundError(path);
}

absl::StatusOr<std::string> MemFiles::Read(const std::string& path) {
  const auto file = Find(path);
  if (file == nullptr) return absl::NotFoundError(path);
  return file->bytes;
}

absl::StatusOr<std::string> MemFiles::ReadAt(const std::string& path, int64_t offset,
                                             int64_t count) {
  const auto file = Find(path);
  if (file == nullptr) return absl::NotFoundError(path);
  const size_t from = std::min(static_cast<size_t>(offset), file->bytes.size());
  return file->bytes.substr(from, static_cast<size_t>(count));
}

absl::Status MemFiles::WriteAtomic(const std::string& path, absl::string_view bytes) {
  if (absl::Status status = MayWrite(path); !status.ok()) return status;
  At(path).files_[path] =
      std::make_shared<File>(File{std::string(bytes), static_cast<size_t>(bytes.size())});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GrowingFile>> MemFiles::OpenAppend(const std::string& path) {
  std::shared_ptr<File> file = Find(path);
  if (file == nullptr) {
    if (absl::Status status = MayWrite(path); !status.ok()) return status;
    file = At(path).files_[path] = std::make_shared<File>();
  }
  return std::make_unique<Open>(*this, std::move(file));
}

absl::Status MemFiles::Truncate(const std::string& path, int64_t size) {
  const auto file = Find(path);
  if (file == nullptr) return absl::NotFoundError(path);
  file->bytes.resize(static_cast<size_t>(size));
  file->synced = std::min(file->synced, file->bytes.size());
  return absl::OkStatus();
}

int64_t MemFiles::Size(const std::string& path) {
  const auto file = Find(path);
  return file == nullptr ? 0 : static_cast<int64_t>(file->bytes.size());
}

bool MemFiles::Exists(const std::string& path) {
  return Find(path) != nullptr || IsDirectory(path);
}

bool MemFiles::IsDirectory(const std::string& path) { return At(path).folders_.count(path) > 0; }

absl::Status MemFiles::MakeDirs(const std::string& path) {
  if (IsDirectory(path)) return absl::OkStatus();
  if (full_) return Full();
  for (std::string folder = path; !folder.empty(); folder = FolderOf(folder))
    At(path).folders_.insert(folder);
  return absl::OkStatus();
}

absl::Status MemFiles::RemoveTree(const std::string& path) {
  MemFiles& at = At(path);
  const std::string beneath = absl::StrCat(path, "/");
  std::erase_if(at.files_, [&](const auto& entry) {
    return entry.first == path || absl::StartsWith(entry.first, beneath);
  });
  std::erase_if(at.folders_, [&](const std::string& folder) {
    return folder == path || absl::StartsWith(folder, beneath);
  });
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> MemFiles::List(const std::string& path) {
  const MemFiles& at = At(path);
  const std::string beneath = absl::StrCat(path, "/");
  std::set<std::string> names;
  const auto add = [&](const std::string& entry) {
    if (!absl::StartsWith(entry, beneath)) return;
    const std::string rest = entry.substr(beneath.size());
    names.insert(rest.substr(0, rest.find('/')));
  };
  for (const auto& [name, file] : at.files_) add(name);
  for (const std::string& folder : at.folders_) add(folder);
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace ll::sim
