// A checkpoint's MANIFEST.json.
#include "base/check.h"
#include "tests/fuzz/fuzz.h"
#include "worker/trainer/checkpoint/format.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto files = ParseManifest(input);
  if (!files.ok()) return CheckRefusal(files.status());
  for (const ManifestFile& file : *files) {
    LL_CHECK(!file.name.empty() && file.name[0] != '.' && file.name.find('/') == std::string::npos);
  }
}

}  // namespace ll
