#include "rpc/secret_file.h"

#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"

namespace ll {
namespace {

constexpr size_t kMostTokenBytes = 16 << 10;  // what the coordinator takes of metadata
constexpr int64_t kMostTokenFileBytes = 64 << 10;

bool Printable(char c) { return absl::ascii_isgraph(static_cast<unsigned char>(c)); }

}  // namespace

absl::StatusOr<std::string> ReadBearerToken(const std::string& path) {
  struct stat st;
  // Of a plain file: a pipe's mode says nothing, and is refused below.
  if (stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & S_IROTH) != 0) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "token-file",
                       absl::StrCat("everybody on this host may read the token in ", path),
                       absl::StrCat("chmod o-rwx ", path, ", and have the token replaced"));
  }
  const absl::StatusOr<std::string> text = ReadPlainFile(path, kMostTokenFileBytes);
  if (!text.ok()) {
    return FieldStatus(text.status().code(), "token-file", text.status().message(),
                       "name a file that this user may read: --token-file");
  }
  const absl::string_view token = absl::StripAsciiWhitespace(*text);
  if (!CheckBearerToken(token).ok()) {
    return MakeFieldError({"token-file", "one token, as llctl token create prints it",
                           token.empty() ? absl::StrCat("nothing in ", path)
                                         : absl::StrCat("something else in ", path)});
  }
  return std::string(token);
}

absl::Status CheckBearerToken(absl::string_view token) {
  if (!token.empty() && token.size() <= kMostTokenBytes &&
      std::all_of(token.begin(), token.end(), Printable))
    return absl::OkStatus();
  return MakeFieldError({"token", "printable characters without blanks, 1 to 16384",
                         absl::StrCat("something else in ", token.size(), " bytes"),
                         "copy it again, as llctl token create printed it"});
}

absl::Status CheckNotForAllToWrite(const std::string& path, absl::string_view field) {
  struct stat st;
  if (path.empty() || stat(path.c_str(), &st) != 0 || (st.st_mode & S_IWOTH) == 0)
    return absl::OkStatus();
  return FieldStatus(absl::StatusCode::kFailedPrecondition, field,
                     absl::StrCat("everybody on this host may write ", path),
                     absl::StrCat("chmod o-w ", path, ", after a look at what it holds"));
}

}  // namespace ll
