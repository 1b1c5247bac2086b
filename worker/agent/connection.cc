#include "worker/agent/connection.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/clock.h"
#include "base/ids.h"
#include "base/log.h"
#include "rpc/channel.h"
#include "rpc/status.h"

namespace ll {
namespace {

constexpr absl::Duration kFirstBackoff = absl::Milliseconds(100);
constexpr absl::Duration kLongestBackoff = absl::Seconds(1);
constexpr absl::Duration kConnectDeadline = absl::Seconds(5);
// Between tries; also how late a connection under way notices Stop.
constexpr absl::Duration kConnectPace = absl::Milliseconds(300);

// Between half and all of `backoff`, so that the agents of a cluster do not come back in one
// instant.
absl::Duration Jittered(absl::Duration backoff) {
  return backoff * (0.5 + static_cast<double>(SystemRandom().Below(1000)) / 2000.0);
}

}  // namespace

Connection::Connection(std::shared_ptr<grpc::Channel> channel, std::function<void()> wake)
    : channel_(std::move(channel)), stub_(v1::Workers::NewStub(channel_)), wake_(std::move(wake)) {}

Connection::~Connection() { Stop(absl::ZeroDuration()); }

void Connection::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Connection::Flush(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  const auto flushed = [this]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !open_ || outbox_.empty(); };
  flushed_.AwaitFor(mu_, timeout, flushed);
}

void Connection::Stop(absl::Duration flush) {
  Flush(flush);
  {
    absl::MutexLock lock(&mu_);
    stopping_ = broken_ = true;
    stopped_.SignalAll();
    if (context_ != nullptr) context_->TryCancel();
  }
  if (thread_.joinable()) thread_.join();
}

std::vector<SessionEvent> Connection::Take() {
  absl::MutexLock lock(&mu_);
  std::vector<SessionEvent> out;
  for (SessionEvent& event : events_) {
    // Of a session that has ended meanwhile only the end is of interest.
    if (event.session == session_ || event.kind == SessionEvent::kClosed)
      out.push_back(std::move(event));
  }
  events_.clear();
  taken_session_ = session_;
  return out;
}

void Connection::Send(v1::AgentMessage message) {
  absl::MutexLock lock(&mu_);
  if (open_ && !broken_ && taken_session_ == session_) outbox_.push_back(std::move(message));
}

void Connection::Reset(const std::string& reason) {
  absl::MutexLock lock(&mu_);
  if (context_ == nullptr || broken_ || taken_session_ != session_) return;
  LL_LOG(kInfo) << "the session is begun anew: " << reason;
  broken_ = true;
  open_ = false;
  flushed_.SignalAll();
  // Orders that were on their way belong to a session the coordinator is about to see end.
  events_.erase(
      std::remove_if(events_.begin(), events_.end(),
                     [](const SessionEvent& event) { return event.kind != SessionEvent::kClosed; }),
      events_.end());
  context_->TryCancel();
}

void Connection::Push(SessionEvent event) {
  {
    absl::MutexLock lock(&mu_);
    if (event.kind == SessionEvent::kMessage && broken_) return;
    event.session = session_;
    events_.push_back(std::move(event));
  }
  wake_();
}

void Connection::WriteUntilClosed(
    grpc::ClientReaderWriter<v1::AgentMessage, v1::CoordinatorMessage>& stream) {
  while (true) {
    v1::AgentMessage message;
    {
      absl::MutexLock lock(&mu_);
      const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return broken_ || !outbox_.empty();
      };
      mu_.Await(
          absl::Condition(&ready));  // ends with the session: the reader sets broken_ at its end
      if (broken_) return;
      message = std::move(outbox_.front());
    }
    // A peer that does not read blocks this; keepalive, the agent's lease or Stop cancel the call
    // then.
    const bool written = stream.Write(message);
    absl::MutexLock lock(&mu_);
    if (!outbox_.empty()) outbox_.pop_front();
    flushed_.SignalAll();
    if (!written) return;
  }
}

absl::Status Connection::RunSession() {
  grpc::ClientContext context;
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return absl::CancelledError("stopping");
    context_ = &context;
    broken_ = heard_ = false;
    outbox_.clear();
    open_ = true;
    ++session_;
  }
  auto stream = stub_->Session(&context);
  Push(SessionEvent{});
  std::thread reader([&] {
    SessionEvent event;
    event.kind = SessionEvent::kMessage;
    while (stream->Read(&event.message)) {
      {
        absl::MutexLock lock(&mu_);
        heard_ = true;
      }
      Push(event);
    }
    absl::MutexLock lock(&mu_);
    broken_ = true;
    open_ = false;
    flushed_.SignalAll();
  });
  WriteUntilClosed(*stream);
  // Whatever ended the writing (the peer's end, a cancel) ends the reading too.
  reader.join();
  const grpc::Status status = stream->Finish();
  absl::MutexLock lock(&mu_);
  context_ = nullptr;
  return FromGrpcStatus(status);
}

bool Connection::Sleep(absl::Duration time) {
  const absl::Duration end = RealClock().Steady() + time;
  absl::MutexLock lock(&mu_);
  for (absl::Duration left = time; !stopping_ && left > absl::ZeroDuration();
       left = end - RealClock().Steady())
    stopped_.WaitFor(mu_, left);
  return !stopping_;
}

// A channel says that it failed, and why only to a call, which it fails at once.
std::string Connection::WhyNot() {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(absl::Now() + kConnectPace));
  const auto stream = stub_->Session(&context);
  v1::CoordinatorMessage ignored;
  while (stream->Read(&ignored)) {
  }
  return stream->Finish().error_message();
}

// gRPC's synchronous channels make progress only while a thread waits on them; a call that fails
// fast would leave a half-made connection alone for seconds. So the connection is waited for here
// and the call made when it stands.
absl::Status Connection::Connect() {
  const absl::Duration deadline = RealClock().Steady() + kConnectDeadline;
  grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/true);
  std::string why;
  while (state != GRPC_CHANNEL_READY && RealClock().Steady() < deadline) {
    // Try again at this loop's pace rather than at the channel's.
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE) {
      if (why.empty()) why = WhyNot();
      grpc::experimental::ChannelResetConnectionBackoff(channel_.get());
    }
    const absl::Time pace = absl::Now() + Jittered(kConnectPace);
    channel_->WaitForStateChange(state, absl::ToChronoTime(pace));
    if (!Sleep(absl::ZeroDuration())) return absl::CancelledError("stopping");
    state = channel_->GetState(true);
  }
  if (state == GRPC_CHANNEL_READY) return absl::OkStatus();
  return absl::UnavailableError(
      why.empty() ? "cannot connect" : absl::StrCat("cannot connect (", LastCause(why), ")"));
}

void Connection::Run() {
  absl::Duration backoff = kFirstBackoff;
  do {
    SessionEvent closed;
    closed.kind = SessionEvent::kClosed;
    closed.status = Connect();
    if (closed.status.ok()) closed.status = RunSession();
    {
      absl::MutexLock lock(&mu_);
      if (std::exchange(heard_, false)) backoff = kFirstBackoff;
    }
    Push(std::move(closed));
    if (!Sleep(Jittered(backoff))) return;
    backoff = std::min(backoff * 2, kLongestBackoff);
  } while (true);
}

}  // namespace ll
