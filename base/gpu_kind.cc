#include "base/gpu_kind.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace ll {
namespace {
constexpr int64_t kMebibyte = 1 << 20;
}  // namespace

std::string GpuKind(absl::string_view name, int64_t memory_bytes) {
  absl::ConsumePrefix(&name, "NVIDIA ");
  for (absl::string_view known : {"H200", "H100", "B200", "GH200", "L40S", "L4", "T4"}) {
    if (absl::StartsWith(name, absl::StrCat(known, " ")) ||
        absl::StartsWith(name, absl::StrCat(known, "-")) || name == known ||
        absl::StartsWith(name, absl::StrCat("Tesla ", known))) {
      return std::string(known);
    }
  }
  if (absl::StartsWith(name, "A100"))
    return memory_bytes > 60'000 * kMebibyte ? "A100-80" : "A100-40";
  // "Tesla V100-SXM2-32GB", "Tesla V100S-PCIE-32GB"; the vendor's prefix depends on the driver.
  if (absl::StartsWith(name, "Tesla V100") || absl::StartsWith(name, "V100"))
    return memory_bytes > 24'000 * kMebibyte ? "V100-32" : "V100-16";
  return std::string(name);
}

bool IsOfGpuType(absl::string_view kind, absl::string_view type) {
  return !type.empty() && absl::StartsWithIgnoreCase(kind, type) &&
         (kind.size() == type.size() || kind[type.size()] == '-');
}

}  // namespace ll
