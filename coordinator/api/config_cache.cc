#include "coordinator/api/config_cache.h"

#include <utility>

#include "base/status_macros.h"

namespace ll {
namespace {
constexpr size_t kMost = 64;
constexpr size_t kMaxTextBytes = 64 << 10;  // of one; they have a few kilobytes
}  // namespace

absl::StatusOr<std::shared_ptr<const LlamaConfig>> ConfigCache::Parse(const std::string& text) {
  {
    absl::MutexLock lock(&mu_);
    if (const auto it = known_.find(text); it != known_.end()) return it->second;
  }
  LL_ASSIGN_OR_RETURN(LlamaConfig parsed, ParseLlamaConfig(text));
  auto config = std::make_shared<const LlamaConfig>(std::move(parsed));
  if (text.size() > kMaxTextBytes) return config;
  absl::MutexLock lock(&mu_);
  if (known_.size() >= kMost) known_.clear();  // a cluster has a few models
  known_.emplace(text, config);
  return config;
}

}  // namespace ll
