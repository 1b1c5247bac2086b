// The connection against a real gRPC server on a free port.
#include "worker/agent/connection.h"

#include <atomic>

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_matchers.h"
#include "rpc/channel.h"

namespace ll {
namespace {

using Stream = grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::AgentMessage>;

// Answers each Hello with a Welcome and each heartbeat with an ack, unless told to misbehave.
class FakeCoordinator : public v1::Workers::Service {
 public:
  grpc::Status Session(grpc::ServerContext*, Stream* stream) override {
    ++sessions;
    if (refuse)
      return grpc::Status(grpc::StatusCode::ALREADY_EXISTS, "a live worker has that name");
    v1::AgentMessage in;
    while (stream->Read(&in)) {
      v1::CoordinatorMessage out;
      out.set_term(7);
      if (in.has_hello()) out.mutable_welcome()->set_lease_seconds(30);
      if (in.has_heartbeat()) out.mutable_heartbeat_ack()->set_sequence(in.heartbeat().sequence());
      if (!deaf && !stream->Write(out)) break;
    }
    return grpc::Status::OK;
  }
  std::atomic<int> sessions = 0;
  std::atomic<bool> refuse = false, deaf = false;
};

class ConnectionTest : public testing::Test {
 protected:
  void SetUp() override { StartServer(0); }
  void TearDown() override {
    connection_.reset();
    StopServer();
  }
  void StartServer(int port) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&coordinator_);
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    if (connection_ != nullptr) return;
    auto channel = MakeChannel({{absl::StrCat("127.0.0.1:", port_)}});
    LL_ASSERT_OK(channel);
    connection_ = std::make_unique<Connection>(*channel, [this] { ++wakes_; });
  }
  void StopServer() {
    if (server_ != nullptr)
      server_->Shutdown(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
    server_.reset();
  }
  // The next event, waiting at most 10 s; kind kClosed with DeadlineExceeded when there is none.
  SessionEvent Next() {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (queue_.empty() && absl::Now() < deadline) {
      for (SessionEvent& event : connection_->Take()) queue_.push_back(std::move(event));
      absl::SleepFor(absl::Milliseconds(1));
    }
    SessionEvent out;
    if (queue_.empty()) {
      out.kind = SessionEvent::kClosed;
      out.status = absl::DeadlineExceededError("no event");
      return out;
    }
    out = std::move(queue_.front());
    queue_.pop_front();
    return out;
  }
  // Skips the ends of failed dials.
  SessionEvent NextOpened() {
    SessionEvent event = Next();
    while (event.kind == SessionEvent::kClosed &&
           event.status.code() != absl::StatusCode::kDeadlineExceeded) {
      event = Next();
    }
    return event;
  }
  void SayHello() {
    v1::AgentMessage hello;
    hello.mutable_hello()->set_worker("w1");
    connection_->Send(hello);
  }

  FakeCoordinator coordinator_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<Connection> connection_;
  std::deque<SessionEvent> queue_;
  std::atomic<int> wakes_ = 0;
  int port_ = 0;
};

TEST_F(ConnectionTest, OpensCarriesBothWaysAndStops) {
  connection_->Start();
  ASSERT_EQ(Next().kind, SessionEvent::kOpened);
  SayHello();
  EXPECT_TRUE(Next().message.has_welcome());
  for (int i = 1; i <= 100; ++i) {
    v1::AgentMessage beat;
    beat.mutable_heartbeat()->set_sequence(i);
    connection_->Send(beat);
  }
  for (int i = 1; i <= 100; ++i) EXPECT_EQ(Next().message.heartbeat_ack().sequence(), i);
  EXPECT_GT(wakes_, 0);
  connection_->Stop(absl::Seconds(1));
}

TEST_F(ConnectionTest, DialsAgainWhenTheCoordinatorComesBack) {
  connection_->Start();
  ASSERT_EQ(Next().kind, SessionEvent::kOpened);
  SayHello();
  EXPECT_TRUE(Next().message.has_welcome());
  StopServer();
  EXPECT_EQ(Next().kind, SessionEvent::kClosed);
  StartServer(port_);
  // Dials that failed meanwhile opened and closed; the last one stays.
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  bool welcomed = false;
  while (!welcomed && absl::Now() < deadline) {
    const SessionEvent event = NextOpened();
    if (event.kind == SessionEvent::kOpened) SayHello();
    welcomed = event.kind == SessionEvent::kMessage && event.message.has_welcome();
  }
  EXPECT_TRUE(welcomed);
}

TEST_F(ConnectionTest, RefusalArrivesWithItsStatus) {
  coordinator_.refuse = true;
  connection_->Start();
  SessionEvent event = Next();
  while (event.kind != SessionEvent::kClosed) event = Next();
  EXPECT_THAT(event.status, StatusIs(absl::StatusCode::kAlreadyExists, "live worker"));
}

TEST_F(ConnectionTest, ResetEndsASessionThatIsSilent) {
  coordinator_.deaf = true;
  connection_->Start();
  ASSERT_EQ(Next().kind, SessionEvent::kOpened);
  SayHello();
  connection_->Reset("a test");
  EXPECT_EQ(Next().kind, SessionEvent::kClosed);
  coordinator_.deaf = false;
  ASSERT_EQ(NextOpened().kind, SessionEvent::kOpened);
  SayHello();
  EXPECT_TRUE(Next().message.has_welcome());
  EXPECT_EQ(coordinator_.sessions, 2);
}

TEST_F(ConnectionTest, StopDoesNotWaitForASilentPeer) {
  coordinator_.deaf = true;
  connection_->Start();
  ASSERT_EQ(Next().kind, SessionEvent::kOpened);
  SayHello();
  const absl::Time began = absl::Now();
  connection_->Stop(absl::Seconds(1));
  EXPECT_LT(absl::Now() - began, absl::Seconds(3));
}

}  // namespace
}  // namespace ll
