// The session with the coordinator: dials, keeps the two directions of the stream moving, and dials
// again with backoff when it ends. What the messages mean is the agent's business (agent.h).
//
//   main thread:    Take() <- events <- reading thread          Send() -> outbox -> session thread
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/steady_cond_var.h"
#include "proto/workers.grpc.pb.h"
#include "worker/agent/agent.h"

namespace ll {

struct SessionEvent {
  enum Kind { kOpened, kMessage, kClosed } kind = kOpened;
  v1::CoordinatorMessage message;  // of kMessage
  absl::Status status;             // of kClosed: why
  int64_t session = 0;             // counts dials
};

// Thread-safe.
class Connection : public Link {
 public:
  // `wake` is called on other threads whenever Take has something; it must not block.
  Connection(std::shared_ptr<grpc::Channel> channel, std::function<void()> wake);
  ~Connection() override;  // as Stop

  void Start();
  // Ends the session, flushing what was given to Send for at most `flush`, and the threads.
  void Stop(absl::Duration flush);

  // Waits until what was given to Send is on its way, at most `timeout`.
  void Flush(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

  // Events since the last call, in order. Of sessions that have ended meanwhile only the end is
  // given.
  std::vector<SessionEvent> Take() ABSL_LOCKS_EXCLUDED(mu_);

  void Send(v1::AgentMessage message) override ABSL_LOCKS_EXCLUDED(mu_);
  void Reset(const std::string& reason) override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run();
  absl::Status RunSession() ABSL_LOCKS_EXCLUDED(mu_);
  void WriteUntilClosed(grpc::ClientReaderWriter<v1::AgentMessage, v1::CoordinatorMessage>& stream)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::string WhyNot();
  absl::Status Connect() ABSL_LOCKS_EXCLUDED(mu_);
  // False when the connection is being stopped.
  bool Sleep(absl::Duration time) ABSL_LOCKS_EXCLUDED(mu_);
  void Push(SessionEvent event) ABSL_LOCKS_EXCLUDED(mu_);

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Workers::Stub> stub_;
  std::function<void()> wake_;
  std::thread thread_;

  absl::Mutex mu_;
  SteadyCondVar stopped_;  // stopping_
  SteadyCondVar flushed_;  // open_, outbox_
  std::deque<SessionEvent> events_ ABSL_GUARDED_BY(mu_);
  std::deque<v1::AgentMessage> outbox_ ABSL_GUARDED_BY(mu_);
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mu_) = nullptr;  // of the running session
  int64_t session_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t taken_session_ ABSL_GUARDED_BY(mu_) =
      0;  // the newest that Take's caller knows of; Send is for that one
  bool open_ ABSL_GUARDED_BY(mu_) = false;    // Send is of use
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // the session is to end at once
  bool heard_ ABSL_GUARDED_BY(mu_) = false;   // the coordinator has said something in this session
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ll
