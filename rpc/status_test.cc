#include "rpc/status.h"

#include "base/field_error.h"
#include "base/leader_error.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

TEST(RpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  LL_EXPECT_OK(FromGrpcStatus(grpc::Status::OK));
}

TEST(RpcStatus, FieldAndHintSurviveTheWire) {
  const absl::Status sent =
      MakeFieldError({"context_length", "a positive number of tokens", "-1", "use --ctx 8192"});
  const absl::Status got = FromGrpcStatus(ToGrpcStatus(sent));
  EXPECT_EQ(got.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(got.message(), sent.message());
  EXPECT_EQ(ErrorField(got), "context_length");
  EXPECT_EQ(ErrorHint(got), "use --ctx 8192");
}

TEST(RpcStatus, TheLeaderSurvivesTheWire) {
  absl::Status sent = absl::UnavailableError("this coordinator is a standby");
  SetErrorLeader(sent, "10.0.0.2:7070");
  const absl::Status got = FromGrpcStatus(ToGrpcStatus(sent));
  EXPECT_EQ(got.message(), sent.message());
  EXPECT_EQ(ErrorLeader(got), "10.0.0.2:7070");
  EXPECT_EQ(ErrorHint(got), "");
}

TEST(RpcStatus, EveryCodeMapsToItself) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status sent(static_cast<absl::StatusCode>(code), "text");
    const grpc::Status wire = ToGrpcStatus(sent);
    EXPECT_EQ(static_cast<int>(wire.error_code()), code);
    EXPECT_TRUE(wire.error_details().empty());
    EXPECT_EQ(FromGrpcStatus(wire), sent);
  }
}

TEST(RpcStatus, UnreadableDetailsAreIgnored) {
  const absl::Status got =
      FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "no job x", "\xff\xff garbage"));
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kNotFound, "no job x"));
  EXPECT_EQ(ErrorField(got), "");
}

}  // namespace
}  // namespace ll
