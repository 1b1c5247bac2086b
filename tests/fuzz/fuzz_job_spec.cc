// A job spec, YAML or JSON, from its text to what the service stores.
#include "base/check.h"
#include "model/spec/job_spec.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  std::vector<std::string> notes;
  const auto spec = ParseJobSpec(input, &notes);
  if (!spec.ok()) return CheckRefusal(spec.status());
  for (const std::string& note : notes) CheckRefusal(absl::InvalidArgumentError(note));
  const auto resolved = Resolve(*spec, {.max_position_embeddings = 4096});
  if (!resolved.ok()) return CheckRefusal(resolved.status());
  const auto again = Resolve(*resolved);
  LL_CHECK(again.ok() && *again == *resolved);
  ToYaml(*resolved);
}

}  // namespace ll
