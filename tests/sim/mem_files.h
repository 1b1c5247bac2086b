// A host's files in memory. They outlive the processes of the host; a power cut takes what was
// added to a file and not synced. Paths beneath /shared are another host's, for a shared job store.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/ids.h"

namespace ll::sim {

// Not thread-safe.
class MemFiles : public Files {
 public:
  explicit MemFiles(MemFiles* shared = nullptr) : shared_(shared) {}

  // Whatever writes fails with ResourceExhausted.
  void SetFull(bool full) { full_ = full; }
  bool full() const { return full_; }
  void PowerCut(Random& random);

  absl::StatusOr<std::string> Read(const std::string& path) override;
  absl::StatusOr<std::string> ReadAt(const std::string& path, int64_t offset,
                                     int64_t count) override;
  absl::Status WriteAtomic(const std::string& path, absl::string_view bytes) override;
  absl::StatusOr<std::unique_ptr<GrowingFile>> OpenAppend(const std::string& path) override;
  absl::Status Truncate(const std::string& path, int64_t size) override;
  int64_t Size(const std::string& path) override;
  bool Exists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;
  absl::Status MakeDirs(const std::string& path) override;
  absl::Status RemoveTree(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;

 private:
  struct File {
    std::string bytes;
    size_t synced = 0;  // so much survives a power cut
  };
  class Open;
  MemFiles& At(const std::string& path);
  std::shared_ptr<File> Find(const std::string& path);
  // Where a file may be made: its folder is there and the disk is not full.
  absl::Status MayWrite(const std::string& path);

  MemFiles* const shared_;
  std::map<std::string, std::shared_ptr<File>> files_;
  std::set<std::string> folders_;
  bool full_ = false;
};

}  // namespace ll::sim
