// Logging for every process. Includes neither spdlog nor fmt, so that the trainer (whose torch
// headers bring another fmt) can use it; the daemons install a spdlog sink at start. Thread-safe.
//
//   LL_LOG(kInfo) << "job " << id << " started";
#pragma once

#include <functional>
#include <sstream>
#include <string>

namespace ll {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Receives every message at or above the level. `line` has no trailing newline.
using LogSink =
    std::function<void(LogLevel level, const char* file, int line, const std::string& text)>;

// Replaces the sink (default: "time level text" on stderr). Call before threads start.
void SetLogSink(LogSink sink);
void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();

class LogMessage {
 public:
  LogMessage(LogLevel level, const char* file, int line)
      : level_(level), file_(file), line_(line) {}
  ~LogMessage();
  std::ostream& stream() { return stream_; }

 private:
  LogLevel level_;
  const char* file_;
  int line_;
  std::ostringstream stream_;
};

// What LL_LOG makes of a message's stream: an expression without a value.
struct LogVoid {
  void operator&(std::ostream&) const {}
};

}  // namespace ll

// One expression, so that it may stand between an `if` without braces and its `else`; `&` binds
// less than `<<` and more than `?:`.
#define LL_LOG(level)                         \
  ::ll::LogLevel::level < ::ll::GetLogLevel() \
      ? (void)0                               \
      : ::ll::LogVoid() & ::ll::LogMessage(::ll::LogLevel::level, __FILE__, __LINE__).stream()
