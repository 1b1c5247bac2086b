#include "base/leader_error.h"

#include "absl/strings/cord.h"

namespace ll {
namespace {
constexpr char kLeader[] = "ll/leader";
}  // namespace

std::string ErrorLeader(const absl::Status& status) {
  auto payload = status.GetPayload(kLeader);
  return payload ? std::string(*payload) : std::string();
}

void SetErrorLeader(absl::Status& status, absl::string_view leader) {
  if (!leader.empty()) status.SetPayload(kLeader, absl::Cord(leader));
}

}  // namespace ll
