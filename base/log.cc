#include "base/log.h"

#include <atomic>
#include <cstdio>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace ll {
namespace {
std::atomic<LogLevel> g_level = LogLevel::kInfo;

void ToStderr(LogLevel level, const char*, int, const std::string& text) {
  static const char* names[] = {"debug", "info", "warning", "error"};
  const std::string time =
      absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone());
  std::fprintf(stderr, "%s %s %s\n", time.c_str(), names[static_cast<int>(level)], text.c_str());
}

LogSink& Sink() {
  static LogSink* sink = new LogSink(ToStderr);
  return *sink;
}
}  // namespace

void SetLogSink(LogSink sink) { Sink() = std::move(sink); }
void SetLogLevel(LogLevel level) { g_level = level; }
LogLevel GetLogLevel() { return g_level; }

LogMessage::~LogMessage() { Sink()(level_, file_, line_, stream_.str()); }

}  // namespace ll
