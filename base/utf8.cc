#include "base/utf8.h"

#include <string>

#include "nlohmann/json.hpp"

namespace ll {

// The strict JSON writer is the check at hand.
bool IsUtf8(absl::string_view text) {
  try {
    (void)nlohmann::json(std::string(text)).dump();
    return true;
  } catch (const nlohmann::json::exception&) {
    return false;
  }
}

}  // namespace ll
