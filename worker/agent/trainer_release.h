// Of which release a trainer program is, read from its file: starting it would cost a quarter of a
// second, most of it for LibTorch's libraries, at every start of an agent.
#pragma once

#include <optional>
#include <string>

namespace ll {

// "0.1.0"; nullopt where the file cannot be read or is not a trainer of this project (a script, a
// stand-in). Thread-safe.
std::optional<std::string> TrainerRelease(const std::string& path);

}  // namespace ll
