// The common half of Watch and Logs: a server stream that is woken, asks its subclass for the next
// message, and writes one at a time.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "coordinator/api/call.h"
#include "coordinator/api/follow.h"
#include "coordinator/api/job_reader.h"

namespace ll {

// Lives from the call's start until gRPC's OnDone. `Response` is the message type. Subclasses are
// guarded by mu_, which is held in Next() and TakeJob().
template <typename Response>
class FollowStream : public grpc::ServerWriteReactor<Response>,
                     public Follower,
                     public std::enable_shared_from_this<FollowStream<Response>> {
 public:
  FollowStream(const ApiContext& api, std::string method, JobId job)
      : api_(api), method_(std::move(method)), job_id_(std::move(job)) {}

  // Makes the stream, checks the caller and subscribes. The returned reactor owns itself.
  template <typename Stream, typename... Args>
  static grpc::ServerWriteReactor<Response>* Start(const ApiContext& api, FollowHub& hub,
                                                   const std::string& method,
                                                   grpc::CallbackServerContext* context,
                                                   Args&&... args) {
    auto stream = std::make_shared<Stream>(api, method, std::forward<Args>(args)...);
    stream->self_ = stream;
    const auto caller = CheckCaller(api, method, *context);
    if (!caller.ok()) {
      Audit(api, method, nullptr, stream->job_id_.value(), "", context->peer(), caller.status());
      stream->End(caller.status());
      return stream.get();
    }
    FollowStream& self = *stream;
    self.turns_ = &hub.turns();
    if (const absl::Status wrong = self.CheckRequest(); !wrong.ok()) {
      stream->End(wrong);
      return stream.get();
    }
    const char* const mark = self.EarlyMetadata();
    if (mark != nullptr) context->AddInitialMetadata(mark, "1");
    const Access access = caller->access();
    api.reader->Read(
        stream->job_id_, access,
        [stream, &hub, mark, access](const absl::Status& status, const Scheduler* view) {
          if (status.ok() && mark != nullptr) stream->StartSendInitialMetadata();
          const absl::Status added =
              status.ok() ? hub.Add(*view, stream->job_id_, access, stream) : status;
          if (!added.ok()) stream->End(added);
        });
    return stream.get();
  }

  void OnJob(JobSnapshot snapshot) override {
    {
      absl::MutexLock lock(&mu_);
      TakeJob(std::move(snapshot));
    }
    Pump();
  }
  void OnJobDeleted() override { End(absl::NotFoundError("the job's record was deleted")); }
  void OnNotServing(const absl::Status& why) override { End(why); }
  void OnWake() override {
    bool stalled;
    {
      absl::MutexLock lock(&mu_);
      stalled = writing_ && api_.clock->Steady() - write_began_ > kMaxStall;
    }
    if (stalled) {
      End(absl::ResourceExhaustedError("the reader takes nothing; dropped"));
    } else {
      Pump();
    }
  }

  void OnTurn() override {
    {
      absl::MutexLock lock(&mu_);
      left_of_turn_ = Turns::kTurn;
      awaits_turn_ = false;
    }
    Pump();
  }

  void OnWriteDone(bool ok) override {
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
    }
    if (ok) Pump();
  }
  void OnCancel() override { End(absl::CancelledError("the reader left")); }
  void OnDone() override { self_.reset(); }

 protected:
  enum class Outcome { kMessage, kWait, kEnd, kTurn };
  // Fills `out` with the next message, or says that there is none yet or none any more, or that
  // finding it takes another turn: callers wait for this, the driver's thread among them.
  virtual Outcome Next(Response* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  virtual void TakeJob(JobSnapshot snapshot) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) = 0;
  // Before anything else: what is wrong with the request.
  virtual absl::Status CheckRequest() const { return absl::OkStatus(); }
  // Initial metadata of this name goes out at once, not with the first message; null: it need not.
  virtual const char* EarlyMetadata() const { return nullptr; }

  const ApiContext& api_;
  const std::string method_;
  const JobId job_id_;
  absl::Mutex mu_;

 private:
  // StartWrite and Finish are called with mu_ held, so that no write begins after the end; gRPC
  // runs reactions later, never within these calls.
  void Pump() {
    absl::MutexLock lock(&mu_);
    if (writing_ || ended_ || awaits_turn_) return;
    if (left_of_turn_ <= 0) {
      awaits_turn_ = true;
      turns_->Await(this->weak_from_this());
      return;
    }
    response_.Clear();
    const Outcome outcome = Next(&response_);
    if (outcome == Outcome::kEnd) EndLocked(absl::OkStatus());
    if (outcome == Outcome::kWait) left_of_turn_ = Turns::kTurn;  // all is told
    if (outcome == Outcome::kTurn) {
      awaits_turn_ = true;
      turns_->Await(this->weak_from_this());
    }
    if (outcome != Outcome::kMessage) return;
    left_of_turn_ -= Turns::CostOf(response_.ByteSizeLong());
    writing_ = true;
    write_began_ = api_.clock->Steady();
    this->StartWrite(&response_);
  }

  void End(const absl::Status& status) {
    absl::MutexLock lock(&mu_);
    if (!ended_) EndLocked(status);
  }

  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    ended_ = true;
    api_.metrics->OnRpc(method_, std::string(StatusCodeName(status.code())), absl::ZeroDuration());
    this->Finish(ToGrpcStatus(status));
  }

  std::shared_ptr<FollowStream> self_;  // until OnDone
  Response response_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  Turns* turns_ = nullptr;  // set before anything is sent
  int left_of_turn_ ABSL_GUARDED_BY(mu_) = Turns::kTurn;
  bool awaits_turn_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration write_began_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
