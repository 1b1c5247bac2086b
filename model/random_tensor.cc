#include "model/random_tensor.h"

#include <ATen/CPUGeneratorImpl.h>

namespace ll {

at::Generator NamedGenerator(uint64_t seed, const std::string& name) {
  // FNV-1a, started from the seed: absl::Hash differs from process to process.
  uint64_t hash = 0xcbf29ce484222325u ^ (seed * 0x9E3779B97F4A7C15u);
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
  hash ^= hash >> 32;
  return at::detail::createCPUGenerator(hash);
}

}  // namespace ll
