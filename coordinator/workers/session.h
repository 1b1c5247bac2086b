// One agent's stream (proto/workers.proto). What arrives is given to the driver one message at a
// time: the next is read when the last is decided and durable, so an agent cannot run ahead of the
// store. What goes out waits in a bounded outbox; an agent that does not take it is dropped and
// hears everything again when it comes back.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "coordinator/api/call.h"
#include "coordinator/api/join.h"
#include "coordinator/runtime/recent_keys.h"
#include "coordinator/workers/hub.h"
#include "proto/workers.grpc.pb.h"

namespace ll {

// Thread-safe. Lives from the stream's start until gRPC's OnDone.
class Session : public grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>,
                public std::enable_shared_from_this<Session> {
 public:
  // Checks the caller and begins to read. The returned reactor owns itself.
  static Session* Start(const ApiContext& api, WorkerHub& hub,
                        grpc::CallbackServerContext* context);

  // From the hub, on the driver's thread.
  void SendOrder(const Send& send, v1::CoordinatorMessage message);
  // Ends the stream with `status`; what is in the outbox is not sent. Only the first call counts.
  void End(const absl::Status& status);
  void CheckHelloDeadline();
  // Puts a message into the outbox; on any thread.
  void Post(v1::CoordinatorMessage message);

  // gRPC's reactions.
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  Session(const ApiContext& api, WorkerHub& hub)
      : api_(api), hub_(hub), began_(api.clock->Steady()) {}

  void HandleHello(const v1::Hello& hello);
  void HandleHeartbeat(const v1::Heartbeat& heartbeat);
  void HandleReport(const v1::Report& report);
  void HandleTelemetry(const v1::Telemetry& telemetry);
  void ReadNext();
  void HandleChecked(const v1::PathChecked& checked);
  void PumpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Whether this agent was given the rank, so may tell of it.
  bool MayTell(const std::string& job, int64_t epoch, int rank);
  void AddTelemetryOffsets(v1::Welcome* welcome);

  const ApiContext& api_;
  WorkerHub& hub_;
  const absl::Duration began_;
  std::shared_ptr<Session> self_;  // until OnDone
  uint64_t number_ = 0;
  Caller caller_;
  std::string peer_;

  // Only touched between a read and the next one.
  v1::AgentMessage incoming_;
  absl::Duration heard_ = absl::ZeroDuration();
  bool refuses_telemetry_ = false;
  bool raised_ = false;

  absl::Mutex mu_;
  WorkerId worker_ ABSL_GUARDED_BY(mu_);  // empty before Hello
  std::vector<v1::HeldGang> held_ ABSL_GUARDED_BY(mu_);
  RecentKeys ranks_ ABSL_GUARDED_BY(mu_){65'536};  // that it was given
  std::deque<v1::CoordinatorMessage> outbox_ ABSL_GUARDED_BY(mu_);
  v1::CoordinatorMessage outgoing_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

class WorkersService : public v1::Workers::CallbackService {
 public:
  WorkersService(const ApiContext& api, WorkerHub& hub, JoinDesk& join)
      : api_(api), hub_(hub), join_(join) {}
  grpc::ServerUnaryReactor* Join(grpc::CallbackServerContext* context,
                                 const v1::JoinRequest* request,
                                 v1::JoinResponse* response) override;
  grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* Session(
      grpc::CallbackServerContext* context) override;

 private:
  const ApiContext& api_;
  WorkerHub& hub_;
  JoinDesk& join_;
};

}  // namespace ll
