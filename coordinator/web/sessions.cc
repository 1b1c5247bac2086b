#include "coordinator/web/sessions.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

namespace ll {

std::string Sessions::Begin(std::string token) {
  const std::string name = RandomHex(random_, 32);
  absl::MutexLock lock(&mu_);
  if (sessions_.size() >= kMost) {
    sessions_.erase(std::min_element(
        sessions_.begin(), sessions_.end(),
        [](const auto& a, const auto& b) { return a.second.used < b.second.used; }));
  }
  sessions_[name] = {std::move(token), clock_.Steady()};
  return name;
}

std::optional<std::string> Sessions::TokenOf(const std::string& name) {
  absl::MutexLock lock(&mu_);
  const auto found = sessions_.find(name);
  if (found == sessions_.end()) return std::nullopt;
  if (clock_.Steady() - found->second.used > kIdle) {
    sessions_.erase(found);
    return std::nullopt;
  }
  found->second.used = clock_.Steady();
  return found->second.token;
}

void Sessions::End(const std::string& name) {
  absl::MutexLock lock(&mu_);
  sessions_.erase(name);
}

std::string CookieValue(const std::string& header, const std::string& name) {
  for (const absl::string_view pair : absl::StrSplit(header, ';')) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(absl::StripAsciiWhitespace(pair), absl::MaxSplits('=', 1));
    if (parts.first == name) return std::string(parts.second);
  }
  return "";
}

}  // namespace ll
