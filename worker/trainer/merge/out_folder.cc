#include "worker/trainer/merge/out_folder.h"

#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

namespace fs = std::filesystem;

// With links resolved as far as the path exists, and without a slash at its end.
std::string Canonical(const std::string& path) {
  std::error_code error;
  std::string text = fs::weakly_canonical(path, error).string();
  if (error) text = fs::absolute(path).lexically_normal().string();
  while (text.size() > 1 && text.back() == '/') text.pop_back();
  return text;
}

}  // namespace

absl::StatusOr<NewFolder> OpenOutFolder(const std::string& field, const std::string& path,
                                        bool overwrite, const std::vector<std::string>& inputs,
                                        int64_t bytes) {
  if (path.empty()) return MakeFieldError({field, "a folder to write", "nothing"});
  const std::string out = Canonical(path);
  for (const std::string& input : inputs) {
    if (input.empty()) continue;
    const std::string real = Canonical(input);
    if (real == out || absl::StartsWith(real, absl::StrCat(out, "/"))) {
      return MakeFieldError({field, "another folder than those that are read", path,
                             absl::StrCat("it holds ", input)});
    }
  }
  if (overwrite && FileExists(path) && !FileExists(path + "/config.json")) {
    return MakeFieldError({field, "a model folder to replace", path,
                           "it has no config.json; remove it yourself if it may go"},
                          absl::StatusCode::kFailedPrecondition);
  }
  std::error_code error;
  fs::path place = fs::path(out).parent_path();
  while (!fs::exists(place, error) && place.has_relative_path()) place = place.parent_path();
  const fs::space_info space = fs::space(place, error);
  if (!error && space.available < static_cast<uintmax_t>(bytes)) {
    return WithErrorClass(
        MakeFieldError({field, absl::StrCat(HumanBytes(bytes), " of free space"),
                        absl::StrCat(HumanBytes(static_cast<int64_t>(space.available)), " in ",
                                     place.string())},
                       absl::StatusCode::kResourceExhausted),
        ErrorClass::kInfrastructure);
  }
  auto folder = NewFolder::Create(field, path, overwrite);
  if (!folder.ok()) return DiskError(folder.status());
  return folder;
}

absl::Status DiskError(absl::Status status) {
  if (!absl::IsResourceExhausted(status)) return status;
  return WithErrorClass(std::move(status), ErrorClass::kInfrastructure);
}

}  // namespace ll
