#include "rpc/status.h"

#include "base/field_error.h"
#include "base/leader_error.h"
#include "proto/errors.pb.h"

namespace ll {
namespace {
constexpr char kDomain[] = "ll.v1";
constexpr char kHintKey[] = "hint";
constexpr char kLeaderKey[] = "leader";
}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const std::string message(status.message());
  const std::string field = ErrorField(status);
  const std::string hint = ErrorHint(status);
  const std::string leader = ErrorLeader(status);
  if (field.empty() && hint.empty() && leader.empty()) return grpc::Status(code, message);

  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(message);
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    auto* violation = bad.add_field_violations();
    violation->set_field(field);
    violation->set_description(message);
    rich.add_details()->PackFrom(bad);
  }
  if (!hint.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason("SEE_HINT");
    info.set_domain(kDomain);
    (*info.mutable_metadata())[kHintKey] = hint;
    rich.add_details()->PackFrom(info);
  }
  if (!leader.empty()) {
    google::rpc::ErrorInfo info;
    info.set_reason("NOT_LEADER");
    info.set_domain(kDomain);
    (*info.mutable_metadata())[kLeaderKey] = leader;
    rich.add_details()->PackFrom(info);
  }
  return grpc::Status(code, message, rich.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status out(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rich;
  if (status.error_details().empty() || !rich.ParseFromString(status.error_details())) return out;
  for (const auto& detail : rich.details()) {
    google::rpc::BadRequest bad;
    google::rpc::ErrorInfo info;
    if (detail.Is<google::rpc::BadRequest>() && detail.UnpackTo(&bad) &&
        bad.field_violations_size() > 0) {
      SetErrorField(out, bad.field_violations(0).field());
    } else if (detail.Is<google::rpc::ErrorInfo>() && detail.UnpackTo(&info)) {
      auto hint = info.metadata().find(kHintKey);
      if (hint != info.metadata().end()) SetErrorHint(out, hint->second);
      auto leader = info.metadata().find(kLeaderKey);
      if (leader != info.metadata().end()) SetErrorLeader(out, leader->second);
    }
  }
  return out;
}

}  // namespace ll
