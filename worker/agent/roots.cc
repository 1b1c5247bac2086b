#include "worker/agent/roots.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/file_name.h"
#include "base/status_macros.h"
#include "base/store_uri.h"

namespace ll {
namespace {

absl::StatusOr<std::string> RealPath(absl::string_view field, const std::string& path) {
  char buffer[PATH_MAX];
  if (realpath(path.c_str(), buffer) != nullptr) return std::string(buffer);
  absl::Status status = Annotate(ErrnoStatus(errno, "cannot open", path), field);
  SetErrorField(status, field);
  return status;
}

bool IsBeneath(const std::string& path, const std::string& folder) {
  return path == folder || folder == "/" || absl::StartsWith(path, absl::StrCat(folder, "/"));
}

}  // namespace

absl::Status AddRoot(absl::string_view text, Roots& roots) {
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos || equals == 0 || equals + 1 == text.size()) {
    return MakeFieldError({"root", "NAME=DIR", std::string(text)});
  }
  const std::string name(text.substr(0, equals));
  LL_ASSIGN_OR_RETURN(std::string folder, RealPath("root", std::string(text.substr(equals + 1))));
  if (!IsDirectory(folder)) return MakeFieldError({"root", "a folder", folder});
  if (!roots.emplace(name, folder).second) return MakeFieldError({"root", "each name once", name});
  return absl::OkStatus();
}

absl::StatusOr<std::string> ResolveBeneath(const Roots& roots, absl::string_view field,
                                           const std::string& path) {
  std::string absolute = path;
  if (!absl::StartsWith(path, "/")) {
    const size_t slash = path.find('/');
    const auto root = roots.find(path.substr(0, slash));
    if (root != roots.end()) {
      absolute = slash == std::string::npos ? root->second : root->second + path.substr(slash);
    }
  }
  if (absl::StartsWith(absolute, "/")) {
    LL_ASSIGN_OR_RETURN(std::string real, RealPath(field, absolute));
    for (const auto& [name, folder] : roots) {
      if (IsBeneath(real, folder)) return real;
    }
  }
  const std::string known = absl::StrJoin(roots, ", ", [](std::string* out, const auto& root) {
    absl::StrAppend(out, root.first, "=", root.second);
  });
  return MakeFieldError(
      {field, absl::StrCat("a path beneath one of this worker's roots (", known, ")"), path},
      absl::StatusCode::kPermissionDenied);
}

namespace {

// Of a path that is beneath a root: that root's folder.
std::string RootOf(const Roots& roots, const std::string& real) {
  for (const auto& [name, folder] : roots) {
    if (IsBeneath(real, folder)) return folder;
  }
  return "/";
}

// openat2 beneath `folder`, without links; -1 with errno.
int OpenRest(int folder, const char* rest) {
  open_how how{};
  how.flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
  return static_cast<int>(syscall(SYS_openat2, folder, rest, &how, sizeof how));
}

}  // namespace

absl::StatusOr<int> OpenBeneath(const Roots& roots, absl::string_view field,
                                const std::string& path) {
  std::string real;
  if (roots.empty()) {
    LL_ASSIGN_OR_RETURN(real, RealPath(field, path));
  } else {
    LL_ASSIGN_OR_RETURN(real, ResolveBeneath(roots, field, path));
  }
  const std::string root = RootOf(roots, real);
  const int folder = open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return ErrnoStatus(errno, "cannot open", root);
  std::string rest = real.substr(root == "/" ? 0 : root.size());
  rest.erase(0, rest.find_first_not_of('/'));
  int fd = OpenRest(folder, rest.empty() ? "." : rest.c_str());
  int error = errno;
  // Before Linux 5.6: the last part at least is no link.
  if (fd < 0 && error == ENOSYS) {
    fd = openat(folder, rest.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
    error = errno;
  }
  close(folder);
  if (fd >= 0) return fd;
  if (error == ELOOP || error == EXDEV) {
    return FieldStatus(absl::StatusCode::kPermissionDenied, field,
                       absl::StrCat(path, " was changed into a link while it was looked at"));
  }
  absl::Status status = Annotate(ErrnoStatus(error, "cannot open", path), field);
  SetErrorField(status, field);
  return status;
}

namespace {

// A folder that a merge is to make: what is there already, its parent, decides.
absl::Status ResolveOutputPath(const Roots& roots, v1::JobSpec& spec) {
  const std::string& given = spec.merge_out();
  if (!absl::StartsWith(given, "/")) return absl::OkStatus();  // a name in the job's folder
  const size_t slash = given.rfind('/');
  const std::string name = given.substr(slash + 1);
  if (!IsPlainFileName(name))
    return MakeFieldError({"merge_out", "the path of a folder to make", given});
  LL_ASSIGN_OR_RETURN(
      const std::string parent,
      ResolveBeneath(roots, "merge_out", given.substr(0, std::max<size_t>(slash, 1))));
  spec.set_merge_out(absl::StrCat(parent, "/", name));
  return absl::OkStatus();
}

// A folder of copies that the trainer makes: what is there already, its nearest parent, decides.
absl::Status ResolveCopyPath(const Roots& roots, v1::JobSpec& spec) {
  if (!spec.has_checkpoint_uri()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const StoreUri uri, ParseStoreUri("checkpoint_uri", spec.checkpoint_uri()));
  if (uri.folder.empty()) return absl::OkStatus();
  std::filesystem::path there(uri.folder);
  std::string rest;
  std::error_code error;
  while (!std::filesystem::exists(there, error) && there.has_relative_path()) {
    const std::string name = there.filename().string();
    if (!IsPlainFileName(name))
      return MakeFieldError({"checkpoint_uri", "the path of a folder to make", uri.folder});
    rest = absl::StrCat("/", name, rest);
    there = there.parent_path();
  }
  LL_ASSIGN_OR_RETURN(const std::string real,
                      ResolveBeneath(roots, "checkpoint_uri", there.string()));
  spec.set_checkpoint_uri(absl::StrCat(real, rest));
  return absl::OkStatus();
}

}  // namespace

absl::Status ResolveSpecPaths(const Roots& roots, v1::JobSpec& spec) {
  if (roots.empty()) return absl::OkStatus();
  for (const char* key : {"model", "adapter", "model_config", "tokenizer", "data", "eval_data"}) {
    const auto* field = v1::JobSpec::descriptor()->FindFieldByName(key);
    const auto* reflection = spec.GetReflection();
    if (!reflection->HasField(spec, field)) continue;
    const std::string given = reflection->GetString(spec, field);
    const bool is_text = absl::StartsWith(absl::StripLeadingAsciiWhitespace(given), "{");
    if (absl::string_view(key) == "model_config" && is_text)
      continue;  // the config itself, not a path
    LL_ASSIGN_OR_RETURN(std::string real, ResolveBeneath(roots, key, given));
    reflection->SetString(&spec, field, real);
  }
  LL_RETURN_IF_ERROR(ResolveCopyPath(roots, spec));
  return ResolveOutputPath(roots, spec);
}

}  // namespace ll
