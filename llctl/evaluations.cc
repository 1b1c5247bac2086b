#include "llctl/evaluations.h"

#include <algorithm>

#include "absl/time/clock.h"
#include "llctl/errors.h"

namespace ll {
namespace {
constexpr absl::Duration kReplayPatience = absl::Seconds(3);
}  // namespace

absl::StatusOr<std::vector<google::protobuf::Struct>> ReadEvaluations(const v1::Job& job,
                                                                      Client& client) {
  std::vector<google::protobuf::Struct> evaluations;
  if (job.epoch() == 0) return evaluations;
  grpc::ClientContext context;
  context.set_deadline(
      absl::ToChronoTime(absl::Now() + std::min(client.timeout(), kReplayPatience)));
  v1::WatchRequest request;
  request.set_job_id(job.job_id());
  const auto stream = client.jobs().Watch(&context, request);
  v1::WatchResponse response;
  bool enough = false;
  while (!enough && stream->Read(&response)) {
    if (response.has_event()) {
      const auto& fields = response.event().fields();
      const auto kind = fields.find("event");
      if (kind != fields.end() && kind->second.string_value() == "eval")
        evaluations.push_back(response.event());
    }
    enough = !HasEnded(job.state()) && response.has_step() &&
             response.step().epoch() == job.epoch() &&
             response.step().step() >= job.progress().step();
  }
  if (enough) context.TryCancel();
  const grpc::Status status = stream->Finish();
  const bool cut = enough || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED;
  if (!status.ok() && !cut) return client.Explain(status);
  return evaluations;
}

}  // namespace ll
