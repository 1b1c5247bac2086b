#include "scaler/coordinator.h"

#include <grpcpp/client_context.h>

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "rpc/secret_file.h"
#include "rpc/status.h"

namespace ll {
namespace {

constexpr absl::Duration kRpcDeadline = absl::Seconds(10);
constexpr int kPage = 1000;
constexpr char kDefaultQueue[] = "default";  // of jobs that name none
// Ends the reason of a cordon that is the scaler's own; before it stands its user.
constexpr char kOwnReason[] = "ll-scaler: not needed";

template <typename Stub, typename Request, typename Response>
absl::Status Call(Stub& stub,
                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request, Response& response) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kRpcDeadline));
  return FromGrpcStatus((stub.*method)(&context, request, &response));
}

ScalingWorker WorkerOf(const v1::Worker& shown) {
  ScalingWorker worker;
  worker.slots = shown.slots_size();
  worker.held = shown.uses_size();
  if (shown.cordoned()) {
    worker.cordon = absl::EndsWith(shown.cordon_reason(), kOwnReason)
                        ? ScalingWorker::Cordon::kScaler
                        : ScalingWorker::Cordon::kOther;
  }
  return worker;
}

QueueRoom RoomOf(const v1::Queue& queue) {
  QueueRoom room;
  if (queue.has_max_gpus()) room.slots = std::max<int64_t>(0, queue.max_gpus() - queue.held_gpus());
  if (queue.has_max_jobs())
    room.gangs = std::max<int64_t>(0, queue.max_jobs() - queue.running_jobs());
  return room;
}

}  // namespace

// Of "ll-worker-3", 3; nothing of a worker that is not the set's.
std::optional<int> ScalingCoordinator::OrdinalOf(absl::string_view worker) const {
  int ordinal = -1;
  if (!absl::ConsumePrefix(&worker, absl::StrCat(set_, "-")) ||
      !absl::SimpleAtoi(worker, &ordinal) || absl::StrCat(ordinal) != worker || ordinal < 0)
    return std::nullopt;
  return ordinal;
}

absl::Status ScalingCoordinator::Connect() {
  std::string token;
  if (!token_file_.empty()) {
    LL_ASSIGN_OR_RETURN(token, ReadBearerToken(token_file_));
  }
  if (admin_ != nullptr && token == channel_.token) return absl::OkStatus();
  channel_.token = token;
  LL_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, MakeChannel(channel_));
  jobs_ = v1::Jobs::NewStub(channel);
  admin_ = v1::Admin::NewStub(channel);
  return absl::OkStatus();
}

// Oldest first. A job that is about to be tried again will want its slots again.
absl::StatusOr<std::vector<WaitingGang>> ScalingCoordinator::Waiting() {
  std::vector<WaitingGang> gangs;
  v1::ListRequest request;
  request.set_page_size(kPage);
  request.add_states(v1::QUEUED);
  request.add_states(v1::RETRYING);
  request.mutable_read_mask()->add_paths("job_id");
  request.mutable_read_mask()->add_paths("spec");
  do {
    v1::ListResponse response;
    LL_RETURN_IF_ERROR(Call(*jobs_, &v1::Jobs::Stub::List, request, response));
    for (const v1::Job& job : response.jobs())
      gangs.push_back({job.job_id(),
                       job.spec().queue().empty() ? kDefaultQueue : job.spec().queue(),
                       static_cast<int>(job.spec().gpus())});
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  std::reverse(gangs.begin(), gangs.end());
  return gangs;
}

absl::StatusOr<std::map<std::string, QueueRoom>> ScalingCoordinator::Rooms() {
  v1::ListQueuesResponse response;
  LL_RETURN_IF_ERROR(
      Call(*admin_, &v1::Admin::Stub::ListQueues, v1::ListQueuesRequest(), response));
  std::map<std::string, QueueRoom> rooms;
  for (const v1::Queue& queue : response.queues()) rooms[queue.name()] = RoomOf(queue);
  return rooms;
}

// Jobs are read before workers, so that one that starts in between is not forgotten; what it holds
// by then tells that it waits no longer, so that it is not counted twice either.
absl::StatusOr<ScalingView> ScalingCoordinator::View() {
  LL_RETURN_IF_ERROR(Connect());
  LL_ASSIGN_OR_RETURN(const std::vector<WaitingGang> waiting, Waiting());
  v1::ListWorkersResponse response;
  LL_RETURN_IF_ERROR(
      Call(*admin_, &v1::Admin::Stub::ListWorkers, v1::ListWorkersRequest(), response));
  ScalingView view;
  std::set<std::string> holders;
  for (const v1::Worker& worker : response.workers()) {
    for (const auto& use : worker.uses()) holders.insert(use.job_id());
    if (const auto ordinal = OrdinalOf(worker.worker())) view.workers[*ordinal] = WorkerOf(worker);
  }
  LL_ASSIGN_OR_RETURN(auto rooms, Rooms());
  view.pending_slots = PendingSlots(waiting, holders, std::move(rooms));
  return view;
}

absl::Status ScalingCoordinator::SetCordon(int ordinal, v1::CordonWorkerRequest::Action action) {
  LL_RETURN_IF_ERROR(Connect());
  v1::CordonWorkerRequest request;
  request.set_worker(absl::StrCat(set_, "-", ordinal));
  request.set_action(action);
  if (action == v1::CordonWorkerRequest::CORDON) request.set_reason(kOwnReason);
  v1::Worker response;
  return Call(*admin_, &v1::Admin::Stub::CordonWorker, request, response);
}

absl::Status ScalingCoordinator::Cordon(int ordinal) {
  return SetCordon(ordinal, v1::CordonWorkerRequest::CORDON);
}

absl::Status ScalingCoordinator::Uncordon(int ordinal) {
  return SetCordon(ordinal, v1::CordonWorkerRequest::UNCORDON);
}

}  // namespace ll
