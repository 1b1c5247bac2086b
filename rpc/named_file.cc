#include "rpc/named_file.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"

namespace ll {

absl::StatusOr<std::string> ReadNamedFile(const std::string& file, absl::string_view flag,
                                          absl::string_view fix) {
  absl::StatusOr<std::string> text = ReadFile(file);
  if (text.ok()) return text;
  const std::string usual = absl::StrCat("name a file that this user may read: --", flag);
  return FieldStatus(text.status().code(), flag, text.status().message(),
                     fix.empty() ? absl::string_view(usual) : fix);
}

absl::Status MakeNamedFolder(const std::string& folder, absl::string_view flag) {
  const absl::Status made = MakeDirs(folder);
  if (made.ok()) return made;
  return FieldStatus(made.code(), flag, made.message(),
                     absl::StrCat("name a folder that this user may write: --", flag));
}

}  // namespace ll
