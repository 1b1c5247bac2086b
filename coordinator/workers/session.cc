#include "coordinator/workers/session.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/log.h"
#include "coordinator/workers/measured_rates.h"
#include "coordinator/workers/messages.h"

namespace ll {
namespace {
constexpr char kMethod[] = "/ll.v1.Workers/Session";
constexpr size_t kMaxOutbox = 4096;
// A term is a coordinator's start: no honest agent is further ahead of a backup.
constexpr int64_t kMaxTermsAhead = 1'000'000;
constexpr absl::Duration kHelloDeadline = absl::Seconds(10);
// Telemetry shows that the agent lives, but a busy one sends hundreds of pieces a second.
constexpr absl::Duration kHeardAtMost = absl::Seconds(1);

std::string RankKey(const std::string& job, int64_t epoch, int rank) {
  return absl::StrCat(job, "/", epoch, "/", rank);
}
}  // namespace

Session* Session::Start(const ApiContext& api, WorkerHub& hub,
                        grpc::CallbackServerContext* context) {
  auto session = std::shared_ptr<Session>(new Session(api, hub));
  session->self_ = session;
  session->number_ = hub.Register(session);
  session->peer_ = context->peer();
  auto caller = CheckCaller(api, kMethod, *context);
  if (caller.ok()) {
    session->caller_ = *std::move(caller);
    session->ReadNext();
  } else {
    Audit(api, kMethod, nullptr, "", "", session->peer_, caller.status());
    session->End(caller.status());
  }
  return session.get();
}

grpc::ServerBidiReactor<v1::AgentMessage, v1::CoordinatorMessage>* WorkersService::Session(
    grpc::CallbackServerContext* context) {
  return ll::Session::Start(api_, hub_, context);
}

grpc::ServerUnaryReactor* WorkersService::Join(grpc::CallbackServerContext* context,
                                               const v1::JoinRequest* request,
                                               v1::JoinResponse* response) {
  UnaryCall call(api_, "/ll.v1.Workers/Join", context);
  call.SetObject(request->worker());
  if (!call.refused().ok()) return call.Finish(call.refused());
  api_.driver->Read(
      [this, call, request, response](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        const bool known = view->workers().count(WorkerId(request->worker())) > 0;
        // Files and signatures are not for the driver's thread; at most a few a second get here.
        std::thread([this, call, request, response, known] {
          auto signed_response = join_.Sign(*request, known, api_.clock->Now());
          if (signed_response.ok()) *response = *std::move(signed_response);
          call.Finish(signed_response.status());
        }).detach();
      });
  return call.reactor();
}

// ---- in

void Session::ReadNext() {
  absl::MutexLock lock(&mu_);
  if (!ended_) StartRead(&incoming_);
}

void Session::OnReadDone(bool ok) {
  if (!ok) {
    End(absl::OkStatus());  // the agent has closed its side, or the connection is gone
    return;
  }
  bool greeted;
  {
    absl::MutexLock lock(&mu_);
    greeted = !worker_.empty();
  }
  if (incoming_.has_hello() == greeted) {
    End(absl::InvalidArgumentError(greeted ? "a second hello" : "the first message must be hello"));
    return;
  }
  switch (incoming_.what_case()) {
    case v1::AgentMessage::kHello:
      return HandleHello(incoming_.hello());
    case v1::AgentMessage::kHeartbeat:
      return HandleHeartbeat(incoming_.heartbeat());
    case v1::AgentMessage::kReport:
      return HandleReport(incoming_.report());
    case v1::AgentMessage::kTelemetry:
      return HandleTelemetry(incoming_.telemetry());
    case v1::AgentMessage::kChecked:
      return HandleChecked(incoming_.checked());
    case v1::AgentMessage::WHAT_NOT_SET:
      return ReadNext();  // of a newer agent
  }
}

void Session::HandleHello(const v1::Hello& hello) {
  auto event = HelloFromProto(hello, number_);
  if (!event.ok()) return End(event.status());
  if (!caller_.worker.empty() && caller_.worker != hello.worker()) {
    const absl::Status denied = FieldStatus(absl::StatusCode::kPermissionDenied, "name",
                                            absl::StrCat("the certificate is for ", caller_.worker,
                                                         ", not for worker ", hello.worker()),
                                            "give the agent the --name of its certificate");
    Audit(api_, kMethod, &caller_, hello.worker(), "", peer_, denied);
    return End(denied);
  }
  const int64_t ahead = hello.highest_term() - api_.driver->term();
  if (ahead > 0 && api_.driver->restored() && ahead <= kMaxTermsAhead && !raised_) {
    // The terms between the backup and its restore: whoever gave orders under them is gone.
    raised_ = true;
    api_.driver->RaiseTermAbove(hello.highest_term(), [self = shared_from_this()] {
      self->HandleHello(self->incoming_.hello());
    });
    return;
  }
  if (ahead > 0) {
    return End(FieldStatus(
        absl::StatusCode::kFailedPrecondition, "term",
        absl::StrCat(
            "the worker has obeyed term ", hello.highest_term(), " and this coordinator is at ",
            api_.driver->term(),
            ": another coordinator gave it orders, or this one's data folder was put back"),
        "in the latter case put it back with ll-coordinator restore, which makes it the "
        "successor"));
  }
  if (api_.measured != nullptr) api_.measured->Heard(hello.worker(), hello.calibration());
  {
    absl::MutexLock lock(&mu_);
    worker_ = event->worker;
    held_.assign(hello.gangs().begin(), hello.gangs().end());
  }
  LL_LOG(kInfo) << "worker " << hello.worker() << " connected, " << hello.slots_size() << " slots, "
                << hello.gangs_size() << " gangs held";
  api_.driver->AgentEvent(*std::move(event), [self = shared_from_this()] { self->ReadNext(); });
}

void Session::HandleHeartbeat(const v1::Heartbeat& heartbeat) {
  WorkerId worker;
  {
    absl::MutexLock lock(&mu_);
    worker = worker_;
  }
  const int64_t sequence = heartbeat.sequence();
  if (api_.loads != nullptr) api_.loads->Set(worker.value(), LoadsFromProto(heartbeat));
  api_.driver->AgentEvent(AgentHeardEvent{worker, number_}, [self = shared_from_this(), sequence] {
    v1::CoordinatorMessage ack;
    ack.mutable_heartbeat_ack()->set_sequence(sequence);
    self->Post(std::move(ack));
    self->ReadNext();
  });
}

void Session::HandleReport(const v1::Report& report) {
  WorkerId worker;
  {
    absl::MutexLock lock(&mu_);
    worker = worker_;
  }
  auto event = ReportFromProto(report, worker, number_);
  if (!event.ok()) return End(event.status());
  api_.driver->AgentEvent(*std::move(event), [self = shared_from_this()] { self->ReadNext(); });
}

void Session::HandleChecked(const v1::PathChecked& checked) {
  WorkerId worker;
  {
    absl::MutexLock lock(&mu_);
    worker = worker_;
  }
  hub_.path_checks().OnAnswer(number_, worker.value(), checked);
  ReadNext();
}

bool Session::MayTell(const std::string& job, int64_t epoch, int rank) {
  absl::MutexLock lock(&mu_);
  return ranks_.Holds(RankKey(job, epoch, rank));
}

void Session::HandleTelemetry(const v1::Telemetry& telemetry) {
  const TelemetryKey key{
      JobId(telemetry.job_id()), telemetry.epoch(), telemetry.rank(),
      telemetry.stream() == v1::Telemetry::LOG ? TelemetryStream::kLog : TelemetryStream::kEvents};
  absl::StatusOr<int64_t> end = absl::PermissionDeniedError("this worker was not given that rank");
  if (MayTell(telemetry.job_id(), telemetry.epoch(), telemetry.rank())) {
    end = api_.telemetry->Append(key, telemetry.offset(), telemetry.data());
  }
  if (end.ok()) {
    v1::CoordinatorMessage message;
    v1::TelemetryAck* ack = message.mutable_telemetry_ack();
    ack->set_job_id(telemetry.job_id());
    ack->set_epoch(telemetry.epoch());
    ack->set_rank(telemetry.rank());
    ack->set_stream(telemetry.stream());
    ack->set_offset(*end);
    Post(std::move(message));
  } else if (!refuses_telemetry_) {  // the agent sends it again and again
    LL_LOG(kWarning) << "telemetry of " << telemetry.job_id()
                     << " is not taken: " << end.status().message();
  }
  refuses_telemetry_ = !end.ok();
  const absl::Duration now = api_.clock->Steady();
  if (now - heard_ >= kHeardAtMost) {
    heard_ = now;
    absl::MutexLock lock(&mu_);
    api_.driver->AgentEvent(AgentHeardEvent{worker_, number_}, nullptr);
  }
  ReadNext();
}

// ---- out

void Session::AddTelemetryOffsets(v1::Welcome* welcome) {
  for (const v1::HeldGang& gang : held_) {
    for (const v1::RankState& rank : gang.ranks()) {
      for (const auto stream : {v1::Telemetry::EVENTS, v1::Telemetry::LOG}) {
        v1::TelemetryAck* ack = welcome->add_telemetry();
        ack->set_job_id(gang.job_id());
        ack->set_epoch(gang.epoch());
        ack->set_rank(rank.rank());
        ack->set_stream(stream);
        ack->set_offset(api_.telemetry->Size(
            {JobId(gang.job_id()), gang.epoch(), rank.rank(),
             stream == v1::Telemetry::LOG ? TelemetryStream::kLog : TelemetryStream::kEvents}));
      }
    }
  }
}

void Session::SendOrder(const Send& send, v1::CoordinatorMessage message) {
  {
    absl::MutexLock lock(&mu_);
    if (const auto* welcome = std::get_if<WelcomeOrder>(&send.order)) {
      AddTelemetryOffsets(message.mutable_welcome());
      // The report sequence shows that the gang was this agent's, also where it is to be killed
      // now.
      for (const Verdict& verdict : welcome->verdicts) {
        if (!verdict.keep && verdict.report_sequence == 0) continue;
        for (const int rank : verdict.ranks)
          ranks_.Add(RankKey(verdict.job.value(), verdict.epoch, rank));
      }
    } else if (const auto* start = std::get_if<StartGangOrder>(&send.order)) {
      for (const RankPlace& place : start->ranks)
        ranks_.Add(RankKey(start->job.value(), start->epoch, place.rank));
    }
  }
  Post(std::move(message));
}

void Session::Post(v1::CoordinatorMessage message) {
  if (message.term() == 0) message.set_term(api_.driver->term());  // else an order's own
  bool full;
  {
    absl::MutexLock lock(&mu_);
    if (ended_) return;
    full = outbox_.size() >= kMaxOutbox;
    if (!full) {
      outbox_.push_back(std::move(message));
      PumpLocked();
    }
  }
  if (full) End(absl::ResourceExhaustedError("the agent takes its orders too slowly; dropped"));
}

void Session::PumpLocked() {
  if (writing_ || ended_ || outbox_.empty()) return;
  outgoing_ = std::move(outbox_.front());
  outbox_.pop_front();
  writing_ = true;
  StartWrite(&outgoing_);
}

void Session::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  writing_ = false;
  if (ok) PumpLocked();
}

// ---- the end

void Session::End(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (ended_) return;
  ended_ = true;
  if (!status.ok()) {
    LL_LOG(kWarning) << "session of " << (worker_.empty() ? "an agent" : worker_.value())
                     << " ended: " << status.message();
  }
  api_.metrics->OnRpc(kMethod, std::string(StatusCodeName(status.code())), absl::ZeroDuration());
  Finish(ToGrpcStatus(status));
}

void Session::CheckHelloDeadline() {
  bool late;
  {
    absl::MutexLock lock(&mu_);
    late = worker_.empty() && api_.clock->Steady() - began_ > kHelloDeadline;
  }
  if (late) End(absl::DeadlineExceededError("no hello within 10 seconds"));
}

void Session::OnCancel() { End(absl::CancelledError("the connection ended")); }

void Session::OnDone() {
  hub_.Forget(number_);
  WorkerId worker;
  {
    absl::MutexLock lock(&mu_);
    worker = worker_;
  }
  if (!worker.empty()) {
    LL_LOG(kInfo) << "worker " << worker << " disconnected";
    api_.driver->AgentEvent(AgentGoneEvent{worker, number_}, nullptr);
  }
  self_.reset();
}

}  // namespace ll
