// The tokens file: one JSON object a line, with the hash of a token and what it allows. The
// coordinator reads it, people write it with `llctl token`. Thread-safe functions.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/ids.h"

namespace ll {

struct TokenEntry {
  std::string
      sha256;  // of the token, 64 lower-case hexadecimal digits; what `list` shows begins it
  std::string user;
  std::string tenant;            // empty: none
  std::set<std::string> scopes;  // out of kTokenScopes
  absl::Time expires = absl::InfiniteFuture();
};
inline constexpr const char* kTokenScopes[] = {"read", "submit", "cancel", "admin", "worker"};
inline constexpr size_t kTokenIdDigits = 12;  // of sha256: enough to name an entry

// What identifies a person: no control characters, 1 to 128 bytes of UTF-8. A tenant: 1 to 64
// letters, digits, '.', '_' or
// '-'.
bool IsUserName(absl::string_view name);
bool IsTenantName(absl::string_view name);

// InvalidArgument (field "tokens", with the line's number): a line that is no entry, a user of two
// tenants.
absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text, absl::string_view path);
// FailedPrecondition too: everybody on this host may write the file.
absl::StatusOr<std::vector<TokenEntry>> ReadTokens(const std::string& path);

// A token of 256 random bits, to be given to its user and kept nowhere.
std::string NewToken(Random& random);

// Adds an entry, or removes the one whose hash begins with `id` and returns it. The file is made
// (0600) where there is none, and changed as a whole; a lock keeps two writers apart. NotFound
// (field "id"): none or several begin so.
absl::Status AddToken(const std::string& path, const TokenEntry& entry);
absl::StatusOr<TokenEntry> RemoveToken(const std::string& path, absl::string_view id);

// Holds `path`.lock until it is destroyed: for files that are read, changed and replaced.
class FileLock {
 public:
  // Errors: Unavailable where another holds it for longer than `patience`.
  static absl::StatusOr<FileLock> Take(const std::string& path,
                                       absl::Duration patience = absl::Seconds(10));
  FileLock(FileLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileLock& operator=(FileLock&&) = delete;
  ~FileLock();

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace ll
