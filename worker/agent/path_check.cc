#include "worker/agent/path_check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int64_t kMaxIndexBytes = 64 << 20;
constexpr int64_t kMaxConfigBytes = 1 << 20;  // it is sent, and a message has 2 MiB
constexpr char kIndex[] = "model.safetensors.index.json";

// An open file of the host that a job may read.
class OpenFile {
 public:
  static absl::StatusOr<OpenFile> Beneath(const Roots& roots, const std::string& path) {
    LL_ASSIGN_OR_RETURN(const int fd, OpenBeneath(roots, "path", path));
    return OpenFile(fd, path);
  }
  OpenFile(OpenFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)), path_(other.path_) {}
  OpenFile& operator=(OpenFile&&) = delete;
  ~OpenFile() {
    if (fd_ >= 0) close(fd_);
  }
  // Bytes of a plain file; a FIFO or a device would hang whoever reads it.
  absl::StatusOr<int64_t> PlainBytes() const {
    struct stat st;
    if (fstat(fd_, &st) != 0) return ErrnoStatus(errno, "cannot read", path_);
    if (!S_ISREG(st.st_mode)) return MakeFieldError({"path", "a file", path_});
    if (st.st_size == 0) return MakeFieldError({"path", "a file with content", path_});
    return st.st_size;
  }
  absl::StatusOr<std::string> Read(int64_t max_bytes) const {
    return ReadPlainFd(fd_, path_, max_bytes);
  }

 private:
  OpenFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
};

absl::StatusOr<int64_t> PlainFileBytes(const Roots& roots, const std::string& path) {
  LL_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Beneath(roots, path));
  return file.PlainBytes();
}

absl::StatusOr<nlohmann::json> ReadObject(const Roots& roots, const std::string& path,
                                          int64_t max_bytes) {
  LL_ASSIGN_OR_RETURN(const OpenFile file, OpenFile::Beneath(roots, path));
  LL_RETURN_IF_ERROR(file.PlainBytes().status());
  LL_ASSIGN_OR_RETURN(const std::string text, file.Read(max_bytes));
  auto json = ParseJsonObject(text);
  return json.ok() ? json : Annotate(json.status(), path);
}

absl::Status CheckWeights(const Roots& roots, const std::string& folder) {
  const std::string index = absl::StrCat(folder, "/", kIndex);
  if (!FileExists(index)) {
    const auto bytes = PlainFileBytes(roots, absl::StrCat(folder, "/model.safetensors"));
    if (bytes.ok()) return absl::OkStatus();
    return MakeFieldError({"path", absl::StrCat("model.safetensors or ", kIndex),
                           absl::StrCat("neither in ", folder)},
                          absl::StatusCode::kNotFound);
  }
  LL_ASSIGN_OR_RETURN(const nlohmann::json json, ReadObject(roots, index, kMaxIndexBytes));
  const auto map = json.find("weight_map");
  if (map == json.end() || !map->is_object() || map->empty())
    return MakeFieldError({index, "a weight_map", "none"});
  std::set<std::string> shards;
  for (const auto& [weight, shard] : map->items()) {
    if (!shard.is_string() || shard.get<std::string>().find('/') != std::string::npos)
      return MakeFieldError({index, "names of files in the same folder", JsonExcerpt(shard)});
    shards.insert(shard.get<std::string>());
  }
  for (const std::string& shard : shards)
    LL_RETURN_IF_ERROR(PlainFileBytes(roots, absl::StrCat(folder, "/", shard)).status());
  return absl::OkStatus();
}

absl::StatusOr<std::string> CheckModel(const Roots& roots, const std::string& folder) {
  if (!IsDirectory(folder)) {
    return MakeFieldError({"path", "a Hugging Face folder", absl::StrCat("no folder ", folder)},
                          absl::StatusCode::kNotFound);
  }
  LL_ASSIGN_OR_RETURN(const nlohmann::json config,
                      ReadObject(roots, absl::StrCat(folder, "/config.json"), kMaxConfigBytes));
  LL_RETURN_IF_ERROR(CheckWeights(roots, folder));
  return config.dump();
}

// A token file, a text file or a folder of them; the trainer reads what is inside.
absl::Status CheckData(const Roots& roots, const std::string& file) {
  if (IsDirectory(file)) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const int64_t bytes, PlainFileBytes(roots, file));
  if (IsTextFileName(file) || bytes % 2 == 0) return absl::OkStatus();
  return MakeFieldError({"path", "a token file, of 2 or 4 bytes a token",
                         absl::StrCat(file, " of ", bytes, " bytes")});
}

}  // namespace

v1::PathChecked CheckRegisteredPath(const Roots& roots, const v1::CheckPath& check) {
  v1::PathChecked out;
  out.set_id(check.id());
  absl::StatusOr<std::string> path =
      roots.empty() ? check.path() : ResolveBeneath(roots, "path", check.path());
  absl::Status status = path.status();
  if (status.ok() && check.kind() == v1::CheckPath::MODEL) {
    auto config = CheckModel(roots, *path);
    if (config.ok()) out.set_config_json(*std::move(config));
    status = config.status();
  } else if (status.ok()) {
    status = CheckData(roots, *path);
  }
  if (!status.ok()) out.set_refused(std::string(status.message()));
  return out;
}

}  // namespace ll
