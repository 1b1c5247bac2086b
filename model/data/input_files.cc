#include "model/data/input_files.h"

#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

namespace fs = std::filesystem;

// Sets `compression` too.
std::optional<DataFormat> FormatOf(absl::string_view name, Compression& compression) {
  compression = absl::ConsumeSuffix(&name, ".gz")    ? Compression::kGzip
                : absl::ConsumeSuffix(&name, ".zst") ? Compression::kZstd
                                                     : Compression::kNone;
  if (absl::EndsWith(name, ".txt")) return DataFormat::kText;
  if (absl::EndsWith(name, ".jsonl") || absl::EndsWith(name, ".ndjson"))
    return DataFormat::kJsonLines;
  if (absl::EndsWith(name, ".json")) return DataFormat::kJson;
  return std::nullopt;
}

absl::Status AddFile(const std::string& path, std::vector<InputFile>& out) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (!S_ISREG(info.st_mode)) {
    return MakeFieldError({path, "a file or a folder", "something that is neither"});
  }
  InputFile file;
  file.path = path;
  file.format = FormatOf(path, file.compression).value_or(DataFormat::kText);
  file.size_bytes = info.st_size;
  file.modified_ns = info.st_mtim.tv_sec * int64_t{1000000000} + info.st_mtim.tv_nsec;
  out.push_back(std::move(file));
  return absl::OkStatus();
}

absl::Status AddFolder(const std::string& folder, std::vector<InputFile>& out) {
  std::error_code error;
  std::vector<std::string> paths;
  fs::recursive_directory_iterator it(folder, error), end;
  while (!error && it != end) {
    const std::string name = it->path().filename().string();
    Compression unused;
    if (absl::StartsWith(name, ".")) {
      it.disable_recursion_pending();
    } else if (it->is_regular_file(error) && FormatOf(name, unused)) {
      paths.push_back(it->path().string());
    }
    if (!error) it.increment(error);
  }
  if (error) return ErrnoStatus(error.value(), "cannot list", folder);
  if (paths.empty()) {
    return MakeFieldError(
        {folder, "a folder with .txt, .jsonl or .json files, also .gz and .zst", "none"});
  }
  std::sort(paths.begin(), paths.end());
  for (const std::string& path : paths) LL_RETURN_IF_ERROR(AddFile(path, out));
  return absl::OkStatus();
}

absl::Status AddPath(const std::string& path, std::vector<InputFile>& out) {
  return IsDirectory(path) ? AddFolder(path, out) : AddFile(path, out);
}

}  // namespace

absl::StatusOr<std::vector<InputFile>> FindInputFiles(const std::vector<std::string>& inputs) {
  std::vector<InputFile> out;
  if (inputs.empty()) return MakeFieldError({"input", "at least one file", "none"});
  for (const std::string& input : inputs) {
    if (input.empty()) return MakeFieldError({"input", "a file, a folder or a pattern", "none"});
    if (FileExists(input) || input.find_first_of("*?[") == std::string::npos) {
      LL_RETURN_IF_ERROR(AddPath(input, out));
      continue;
    }
    glob_t matches{};
    absl::Cleanup free_matches = [&] { globfree(&matches); };
    const int rc = glob(input.c_str(), 0, nullptr, &matches);  // sorted
    if (rc == GLOB_NOMATCH) return MakeFieldError({input, "a pattern that matches a file", "none"});
    if (rc != 0) return FieldStatus(absl::StatusCode::kInternal, input, "cannot list the matches");
    for (size_t i = 0; i < matches.gl_pathc; ++i) {
      LL_RETURN_IF_ERROR(AddPath(matches.gl_pathv[i], out));
    }
  }
  return out;
}

}  // namespace ll
