#include "rpc/token_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "rpc/secret_file.h"

namespace ll {
namespace {

constexpr JsonLimits kLineLimits{.max_depth = 4, .max_values = 100};

std::string LineOf(const TokenEntry& entry) {
  nlohmann::ordered_json json = {{"token_sha256", entry.sha256}, {"user", entry.user}};
  if (!entry.tenant.empty()) json["tenant"] = entry.tenant;
  json["scopes"] = entry.scopes;
  if (entry.expires != absl::InfiniteFuture()) {
    json["expires"] = absl::FormatTime("%Y-%m-%d%ET%H:%M:%SZ", entry.expires, absl::UTCTimeZone());
  }
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

absl::StatusOr<TokenEntry> ParseLine(absl::string_view line) {
  const auto bad = [](absl::string_view expected) { return absl::InvalidArgumentError(expected); };
  const auto json = ParseJsonObject(line, kLineLimits);
  if (!json.ok()) return bad("a JSON object");
  const auto text_of = [&json](const char* key) {
    const auto it = json->find(key);
    return it != json->end() && it->is_string() ? it->get<std::string>() : std::string();
  };
  TokenEntry entry;
  entry.sha256 = text_of("token_sha256");
  if (entry.sha256.size() != 64 ||
      entry.sha256.find_first_not_of("0123456789abcdef") != std::string::npos)
    return bad("token_sha256 of 64 lower-case hexadecimal digits");
  entry.user = text_of("user");
  if (!IsUserName(entry.user)) return bad("a user");
  entry.tenant = text_of("tenant");
  if (json->contains("tenant") && !IsTenantName(entry.tenant))
    return bad("tenant of letters, digits, '.', '_' or '-'");
  const auto scopes = json->find("scopes");
  if (scopes == json->end() || !scopes->is_array()) return bad("scopes, a list");
  for (const auto& scope : *scopes) {
    const std::string name = scope.is_string() ? scope.get<std::string>() : "";
    if (std::find(std::begin(kTokenScopes), std::end(kTokenScopes), name) == std::end(kTokenScopes))
      return bad("scopes out of read, submit, cancel, admin, worker");
    entry.scopes.insert(name);
  }
  std::string error;
  if (json->contains("expires") &&
      !absl::ParseTime(absl::RFC3339_full, text_of("expires"), &entry.expires, &error))
    return bad("expires as RFC 3339 time");
  return entry;
}

absl::Status Write(const std::string& path, const std::vector<TokenEntry>& entries) {
  std::string text;
  for (const TokenEntry& entry : entries) text += LineOf(entry);
  // A file that is there keeps its owner and mode: the coordinator's account reads it.
  struct stat st;
  const bool there = stat(path.c_str(), &st) == 0;
  LL_RETURN_IF_ERROR(WriteFileAtomic(path, text, there ? st.st_mode & 0777 : 0600));
  if (there && geteuid() == 0 && chown(path.c_str(), st.st_uid, st.st_gid) != 0)
    return ErrnoStatus(errno, "cannot give back", path);
  return absl::OkStatus();
}

}  // namespace

bool IsUserName(absl::string_view name) {
  return !name.empty() && name.size() <= 128 && IsValidUtf8(name) &&
         std::none_of(name.begin(), name.end(),
                      [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); });
}

bool IsTenantName(absl::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  });
}

absl::StatusOr<std::vector<TokenEntry>> ParseTokens(absl::string_view text,
                                                    absl::string_view path) {
  std::vector<TokenEntry> entries;
  std::map<std::string, std::string> tenants;  // by user
  int number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    if (absl::StripAsciiWhitespace(line).empty()) continue;
    absl::StatusOr<TokenEntry> entry = ParseLine(line);
    const auto bad = [&](absl::string_view expected) {
      return MakeFieldError(
          {"tokens", expected, absl::StrCat("something else in line ", number, " of ", path)});
    };
    if (!entry.ok()) return bad(entry.status().message());
    // Request ids belong to a user, so that two tenants must not share one.
    const auto [known, is_new] = tenants.insert({entry->user, entry->tenant});
    if (!is_new && known->second != entry->tenant) return bad("one tenant for each user");
    entries.push_back(*std::move(entry));
  }
  return entries;
}

absl::StatusOr<std::vector<TokenEntry>> ReadTokens(const std::string& path) {
  LL_RETURN_IF_ERROR(CheckNotForAllToWrite(path, "tokens"));
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) {
    return FieldStatus(text.status().code(), "tokens", text.status().message(),
                       "llctl token create makes it; the coordinator's account reads it");
  }
  return ParseTokens(*text, path);
}

std::string NewToken(Random& random) { return absl::StrCat("ll_", RandomHex(random, 32)); }

absl::Status AddToken(const std::string& path, const TokenEntry& entry) {
  if (!IsUserName(entry.user)) {
    return MakeFieldError({"user", "1 to 128 bytes of UTF-8 without control characters",
                           absl::StrCat("something else in ", entry.user.size(), " bytes")});
  }
  LL_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(path));
  std::vector<TokenEntry> entries;
  if (FileExists(path)) {
    LL_ASSIGN_OR_RETURN(entries, ReadTokens(path));
  }
  entries.push_back(entry);
  // What the coordinator would refuse must not be written.
  std::string text;
  for (const TokenEntry& e : entries) text += LineOf(e);
  LL_RETURN_IF_ERROR(ParseTokens(text, path).status());
  return Write(path, entries);
}

absl::StatusOr<TokenEntry> RemoveToken(const std::string& path, absl::string_view id) {
  LL_ASSIGN_OR_RETURN(const FileLock lock, FileLock::Take(path));
  LL_ASSIGN_OR_RETURN(std::vector<TokenEntry> entries, ReadTokens(path));
  const auto named = [id](const TokenEntry& e) { return absl::StartsWith(e.sha256, id); };
  const auto count = std::count_if(entries.begin(), entries.end(), named);
  if (id.empty() || count != 1) {
    return FieldStatus(absl::StatusCode::kNotFound, "id",
                       absl::StrCat(count == 0 || id.empty() ? "no token" : "more than one token",
                                    " of ", path, " begins with ", OneLine(id)),
                       "llctl token list shows them");
  }
  const auto it = std::find_if(entries.begin(), entries.end(), named);
  TokenEntry removed = *it;
  entries.erase(it);
  LL_RETURN_IF_ERROR(Write(path, entries));
  return removed;
}

absl::StatusOr<FileLock> FileLock::Take(const std::string& path, absl::Duration patience) {
  const std::string name = path + ".lock";
  const int fd = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", name);
  FileLock lock(fd);
  const absl::Duration end = RealClock().Steady() + patience;
  while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return ErrnoStatus(errno, "cannot lock", name);
    if (RealClock().Steady() >= end) {
      return FieldStatus(
          absl::StatusCode::kUnavailable, name,
          absl::StrCat("another process has held it for ", absl::FormatDuration(patience)),
          "a stopped llctl token or ll-coordinator pki? fuser names it");
    }
    RealClock().Sleep(absl::Milliseconds(10));
  }
  return lock;
}

FileLock::~FileLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace ll
