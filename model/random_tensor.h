// Random streams named by (seed, name), so that a value does not depend on what was drawn before
// it.
#pragma once

#include <string>

#include <ATen/ATen.h>

namespace ll {

// A CPU generator whose stream is a hash of seed and name.
at::Generator NamedGenerator(uint64_t seed, const std::string& name);

}  // namespace ll
