#include "base/ids.h"

#include <sys/random.h>

#include "absl/strings/escaping.h"
#include "base/check.h"

namespace ll {
namespace {
class KernelRandom : public Random {
 public:
  uint64_t Next() override {
    uint64_t value;
    LL_CHECK(getrandom(&value, sizeof value, 0) == static_cast<ssize_t>(sizeof value));
    return value;
  }
};
}  // namespace

uint64_t Random::Below(uint64_t bound) {
  LL_CHECK(bound > 0);
  // Rejection keeps the draw uniform: values past the last full multiple of `bound` are thrown
  // away.
  const uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
  uint64_t value = Next();
  while (value >= limit) value = Next();
  return value % bound;
}

uint64_t SeededRandom::Next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

Random& SystemRandom() {
  static KernelRandom* random = new KernelRandom;
  return *random;
}

std::string RandomHex(Random& random, int bytes) {
  std::string raw(bytes, '\0');
  for (char& c : raw) c = static_cast<char>(random.Below(256));
  return absl::BytesToHexString(raw);
}

JobId NewJobId(Random& random) { return JobId("job-" + RandomHex(random, 6)); }

}  // namespace ll
