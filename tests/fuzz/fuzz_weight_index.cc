// A model.safetensors.index.json.
#include "base/check.h"
#include "model/weights/sharded.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto index = ParseWeightIndex(input);
  if (!index.ok()) return CheckRefusal(index.status());
  for (const auto& [tensor, file] : *index) {
    LL_CHECK(!file.empty() && file != ".." && file.find('/') == std::string::npos);
  }
}

}  // namespace ll
