// For tests: a coordinator in this process, a client of it, and an agent that does what the test
// says.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/coordinator.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"
#include "proto/schedules.grpc.pb.h"
#include "proto/workers.grpc.pb.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace ll {

inline constexpr absl::Duration kTestPatience = absl::Seconds(20);

// A folder with a coordinator on free ports in it.
class CoordinatorUnderTest {
 public:
  CoordinatorUnderTest() {
    options.listen = options.http = "127.0.0.1:0";
    options.data_dir = dir_.path() + "/data";
  }

  absl::Status Start(Coordinator::WrapStore wrap = nullptr) {
    auto started = Coordinator::Start(options, *clock, std::move(wrap));
    if (!started.ok()) return started.status();
    coordinator_ = *std::move(started);
    return absl::OkStatus();
  }
  void Stop() { coordinator_.reset(); }

  const std::string& dir() const { return dir_.path(); }
  std::string address() const { return coordinator_->grpc_address(); }
  std::string token() const {
    const auto text = ReadFile(options.data_dir + "/token");
    return text.ok() ? text->substr(0, text->size() - 1) : "";
  }
  std::shared_ptr<grpc::Channel> Channel(ChannelConfig config = {}) const {
    config.addresses = {address()};
    if (config.token.empty()) config.token = token();
    auto channel = MakeChannel(config);
    EXPECT_TRUE(channel.ok()) << channel.status();
    return *channel;
  }

  CoordinatorOptions options;
  Clock* clock = &RealClock();  // outlives it

 private:
  const TempDir dir_;
  std::unique_ptr<Coordinator> coordinator_;
};

inline void SetDeadline(grpc::ClientContext& context) {
  context.set_deadline(absl::ToChronoTime(absl::Now() + kTestPatience));
}

// Calls one unary method: CallOnce<v1::Job>(stub, &v1::Jobs::Stub::Get, request).
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> CallOnce(Stub& stub,
                                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                                  const Request& request) {
  grpc::ClientContext context;
  SetDeadline(context);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

// Calls any method, by its path, with one message. Code and message of its end.
inline grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                            const grpc::ByteBuffer& message, bool* answered = nullptr) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  SetDeadline(context);
  grpc::CompletionQueue queue;
  auto call = stub.PrepareCall(&context, path, &queue);
  void* tag;
  bool ok = false;
  const auto step = [&] { queue.Next(&tag, &ok); };
  call->StartCall(nullptr);
  step();
  grpc::ByteBuffer answer;
  if (ok) {
    call->WriteLast(message, grpc::WriteOptions(), nullptr);
    step();
    call->Read(&answer, nullptr);
    step();
    if (answered != nullptr) *answered = ok;
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  step();
  return status;
}
inline grpc::ByteBuffer Empty() {
  const grpc::Slice nothing("", 0);
  return grpc::ByteBuffer(&nothing, 1);
}

// An agent's end of the stream. Messages are read on a thread of its own.
class ScriptedAgent {
 public:
  // Each message goes through `wire` first, in both directions: an agent of another release.
  using Wire = std::function<void(google::protobuf::Message&)>;
  ScriptedAgent(std::shared_ptr<grpc::Channel> channel, std::string name, std::string incarnation,
                Wire wire = nullptr)
      : wire_(std::move(wire)),
        stub_(v1::Workers::NewStub(channel)),
        stream_(stub_->Session(&context_)) {
    hello_.set_protocol_version(1);
    hello_.set_worker(std::move(name));
    hello_.set_incarnation(std::move(incarnation));
    hello_.set_host("host");
    reader_ = std::thread([this] {
      v1::CoordinatorMessage message;
      while (stream_->Read(&message)) {
        if (wire_) wire_(message);
        absl::MutexLock lock(&mu_);
        inbox_.push_back(message);
      }
      absl::MutexLock lock(&mu_);
      closed_ = true;
    });
  }
  ~ScriptedAgent() { Hang(); }

  // Ends the connection as a killed agent does.
  void Hang() {
    if (!reader_.joinable()) return;
    context_.TryCancel();
    reader_.join();
    stream_->Finish();
  }

  v1::Hello& hello() { return hello_; }
  void AddSlots(int count) {
    for (int i = 0; i < count; ++i) {
      v1::Slot* slot = hello_.add_slots();
      slot->set_index(i);
      slot->set_kind("cpu");
    }
  }
  void SayHello() {
    v1::AgentMessage message;
    *message.mutable_hello() = hello_;
    Send(message);
  }
  void Send(v1::AgentMessage message) {
    if (wire_) wire_(message);
    stream_->Write(message);
  }

  v1::Report* NewReport(v1::AgentMessage& message, const v1::StartGang& gang, int rank) {
    v1::Report* report = message.mutable_report();
    report->set_job_id(gang.job_id());
    report->set_epoch(gang.epoch());
    report->set_rank(rank);
    report->set_sequence(++sequence_);
    return report;
  }
  void ReportTraining(const v1::StartGang& gang) {
    for (const v1::RankPlace& place : gang.ranks()) {
      v1::AgentMessage started, training;
      NewReport(started, gang, place.rank())->mutable_started()->set_pid(1);
      Send(started);
      NewReport(training, gang, place.rank())->mutable_training()->set_step(0);
      Send(training);
    }
  }
  void ReportExit(const v1::StartGang& gang, int exit_code, bool ordered = false) {
    for (const v1::RankPlace& place : gang.ranks()) {
      v1::AgentMessage message;
      v1::ExitReport* exit = NewReport(message, gang, place.rank())->mutable_exit();
      exit->set_exit_code(exit_code);
      exit->set_ordered(ordered);
      Send(message);
    }
  }
  void SendTelemetry(const v1::StartGang& gang, v1::Telemetry::Stream stream, int64_t offset,
                     const std::string& data) {
    v1::AgentMessage message;
    v1::Telemetry* telemetry = message.mutable_telemetry();
    telemetry->set_job_id(gang.job_id());
    telemetry->set_epoch(gang.epoch());
    telemetry->set_stream(stream);
    telemetry->set_offset(offset);
    telemetry->set_data(data);
    Send(message);
  }

  // Takes the first message for which `wanted` holds; fails the test when none comes.
  v1::CoordinatorMessage Take(const std::function<bool(const v1::CoordinatorMessage&)>& wanted,
                              const char* what) {
    const auto find = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return std::find_if(inbox_.begin(), inbox_.end(), wanted);
    };
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return closed_ || find() != inbox_.end();
    };
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&there), kTestPatience);
    const auto it = find();
    if (it == inbox_.end()) {
      ADD_FAILURE() << "the agent never got: " << what;
      return {};
    }
    v1::CoordinatorMessage found = *it;
    inbox_.erase(it);
    return found;
  }
  v1::Welcome TakeWelcome() {
    return Take([](const auto& m) { return m.has_welcome(); }, "welcome").welcome();
  }
  v1::StartGang TakeStart() {
    return Take([](const auto& m) { return m.has_start(); }, "start").start();
  }
  v1::StopGang TakeStop() {
    return Take([](const auto& m) { return m.has_stop(); }, "stop").stop();
  }
  v1::TelemetryAck TakeTelemetryAck() {
    return Take([](const auto& m) { return m.has_telemetry_ack(); }, "telemetry ack")
        .telemetry_ack();
  }
  void TakeAck(int64_t sequence) {
    Take([&](const auto& m) { return m.has_report_ack() && m.report_ack().sequence() >= sequence; },
         "report ack");
  }
  int64_t sequence() const { return sequence_; }

  // The status the coordinator ended the stream with.
  absl::Status End() {
    reader_.join();
    return FromGrpcStatus(stream_->Finish());
  }

 private:
  const Wire wire_;
  grpc::ClientContext context_;
  std::unique_ptr<v1::Workers::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::AgentMessage, v1::CoordinatorMessage>> stream_;
  v1::Hello hello_;
  int64_t sequence_ = 0;
  std::thread reader_;
  absl::Mutex mu_;
  std::deque<v1::CoordinatorMessage> inbox_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace ll
