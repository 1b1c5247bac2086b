#include "rpc/spdlog_sink.h"

#include <grpc/support/log.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstring>

#include "base/log.h"

namespace ll {
namespace {
spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// Text of users and of other machines reaches the log; a raw newline or escape byte would forge
// lines or move a terminal's cursor.
std::string Printable(const std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += c == '\n' ? std::string("\\n") : std::string("?");
    } else {
      out += c;
    }
  }
  return out;
}
}  // namespace

void InstallSpdlogSink(const std::string& process) {
  auto logger = spdlog::stderr_logger_mt(process);
  logger->set_level(spdlog::level::debug);  // base/log.h filters
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l [%n] %v (%s:%#)", spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  SetLogSink([logger](LogLevel level, const char* file, int line, const std::string& text) {
    const char* slash = std::strrchr(file, '/');
    logger->log(spdlog::source_loc{slash != nullptr ? slash + 1 : file, line, ""}, ToSpdlog(level),
                "{}", Printable(text));
  });
  // gRPC writes on stderr about every lost connection; whoever wants to see it asks for debug.
  gpr_set_log_function([](gpr_log_func_args* args) {
    if (GetLogLevel() > LogLevel::kDebug) return;
    LogMessage(LogLevel::kDebug, args->file, args->line).stream() << "grpc: " << args->message;
  });
}

}  // namespace ll
