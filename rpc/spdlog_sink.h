// Makes base/log.h write through spdlog: one line a message on stderr, "time level [process] text
// (file:line)".
#pragma once

#include <string>

namespace ll {

// Call once at start, before threads. `process` stands in every line. Warnings and errors are
// flushed at once.
void InstallSpdlogSink(const std::string& process);

}  // namespace ll
