// What the coordinator tells a scaler and takes from it.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"
#include "rpc/channel.h"
#include "scaler/decide.h"

namespace ll {

// One call at a time, each with a deadline of 10 s. Errors are the coordinator's.
class ScalingCoordinator {
 public:
  // The channel's token is what `token_file` holds, read again when the file has changed. Workers
  // of the set are those named SET-0, SET-1, … .
  ScalingCoordinator(ChannelConfig channel, std::string token_file, std::string set)
      : channel_(std::move(channel)), token_file_(std::move(token_file)), set_(std::move(set)) {}

  // All of the view but the replicas.
  absl::StatusOr<ScalingView> View();
  // The worker may take no new gang, or may again; what runs there is left alone.
  absl::Status Cordon(int ordinal);
  absl::Status Uncordon(int ordinal);

 private:
  absl::Status Connect();
  absl::Status SetCordon(int ordinal, v1::CordonWorkerRequest::Action action);
  std::optional<int> OrdinalOf(absl::string_view worker) const;
  absl::StatusOr<std::vector<WaitingGang>> Waiting();
  absl::StatusOr<std::map<std::string, QueueRoom>> Rooms();

  ChannelConfig channel_;
  const std::string token_file_, set_;
  std::unique_ptr<v1::Jobs::Stub> jobs_;
  std::unique_ptr<v1::Admin::Stub> admin_;
};

}  // namespace ll
