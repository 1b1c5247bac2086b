// Who is logged in at the web pages: a random name in a cookie stands for the token that was given,
// so that the token itself is not sent with every request. Kept in memory: a restart logs all out.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/ids.h"

namespace ll {

// Thread-safe.
class Sessions {
 public:
  static constexpr absl::Duration kIdle = absl::Hours(12);
  static constexpr size_t kMost = 1000;  // beyond it the one not used for longest goes

  Sessions(Clock& clock, Random& random) : clock_(clock), random_(random) {}

  // Returns the new session's name: 64 hex digits.
  std::string Begin(std::string token);
  // Its token; nullopt: there is none, or it was idle for too long.
  std::optional<std::string> TokenOf(const std::string& name);
  void End(const std::string& name);

 private:
  struct Session {
    std::string token;
    absl::Duration used;  // steady time
  };
  Clock& clock_;
  Random& random_;
  absl::Mutex mu_;
  std::map<std::string, Session> sessions_ ABSL_GUARDED_BY(mu_);
};

// The value of a cookie in a Cookie header; empty: it is not there.
std::string CookieValue(const std::string& header, const std::string& name);

}  // namespace ll
