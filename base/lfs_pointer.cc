#include "base/lfs_pointer.h"

#include "absl/strings/match.h"
#include "base/field_error.h"
#include "base/file.h"

namespace ll {
namespace {

// By the specification a pointer is shorter than this.
constexpr int64_t kMostPointerBytes = 1024;

}  // namespace

absl::Status CheckNotLfsPointer(const std::string& path) {
  const auto text = ReadPlainFile(path, kMostPointerBytes);
  if (!text.ok() || !absl::StartsWith(*text, "version https://git-lfs.github.com/spec/"))
    return absl::OkStatus();
  return MakeFieldError({path, "the file itself", "a pointer of git-lfs to it",
                         "git lfs pull in that folder, or download it with hf download"});
}

}  // namespace ll
