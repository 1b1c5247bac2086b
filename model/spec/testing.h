// For tests of job specs.
#pragma once

#include "base/status_matchers.h"
#include "model/spec/job_spec.h"

namespace ll {

// A spec from text that is right.
inline JobSpec Parse(absl::string_view text) {
  auto spec = ParseJobSpec(text);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : JobSpec();
}

}  // namespace ll
