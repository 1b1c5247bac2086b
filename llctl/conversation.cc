#include "llctl/conversation.h"

#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "base/terminal_text.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

// How long each wait lasts before Ctrl-C is looked for again.
constexpr absl::Duration kLook = absl::Milliseconds(100);
// A long prompt is read before the first word comes.
constexpr absl::Duration kSilence = absl::Minutes(30);

bool JobHasEnded(const v1::Job& job) {
  return job.state() == v1::SUCCEEDED || job.state() == v1::FAILED || job.state() == v1::CANCELLED;
}

absl::Status EndOf(const v1::Job& job) {
  return absl::FailedPreconditionError(
      absl::StrCat("the job has ended, ", v1::JobState_Name(job.state()), ": ", job.reason()));
}

}  // namespace

Conversation::Conversation(Session& session, std::string job_id)
    : session_(session), job_id_(std::move(job_id)) {
  follower_ = std::thread([this] {
    const absl::StatusOr<Followed> followed = FollowJob(session_, job_id_, /*from_step=*/0, *this);
    absl::MutexLock lock(&mu_);
    ended_ = true;
    news_.SignalAll();
    if (followed.ok()) {
      job_ = followed->job;
    } else {
      follow_status_ = followed.status();
    }
  });
}

Conversation::~Conversation() {
  bool ended;
  {
    absl::MutexLock lock(&mu_);
    ended = JobHasEnded(job_) || !follow_status_.ok();  // following also ends with Ctrl-C
  }
  if (!ended) {
    v1::CancelRequest request;
    request.set_job_id(job_id_);
    request.set_reason("the conversation is over");
    if (const auto client = session_.client(); client.ok())
      (*client)->Call((*client)->jobs(), &v1::Jobs::Stub::Cancel, request).status().IgnoreError();
  }
  follower_.join();
}

void Conversation::OnJob(const v1::Job& job) {
  absl::MutexLock lock(&mu_);
  job_ = job;
}

void Conversation::OnEvent(const google::protobuf::Struct& event) {
  nlohmann::ordered_json json = ProtoToJson(event);
  const std::string kind = json.value("event", "");
  if (kind != "token" && kind != "answer" && kind != "warning") return;
  absl::MutexLock lock(&mu_);
  events_.push_back(std::move(json));
  news_.SignalAll();
}

void Conversation::OnContact(const absl::Status& status) {
  if (!status.ok()) {
    absl::MutexLock lock(&mu_);
    lost_contact_ = true;
  }
  session_.talk() << "llctl: "
                  << (status.ok() ? std::string("the coordinator is back")
                                  : std::string(status.message()))
                  << std::endl;
}

absl::Status Conversation::AwaitReady(
    const std::function<void(const std::string& reason)>& on_wait) {
  std::string told;
  for (;;) {
    if (session_.environment().interrupt.raised()) return absl::CancelledError("Ctrl-C");
    v1::Job job;
    {
      absl::MutexLock lock(&mu_);
      if (!follow_status_.ok()) return follow_status_;
      if (ended_ || JobHasEnded(job_)) return EndOf(job_);
      if (job_.state() == v1::RUNNING) return absl::OkStatus();
      job = job_;
    }
    if (job.reason() != told) on_wait(told = job.reason());
    session_.environment().interrupt.SleepFor(kLook);
  }
}

absl::StatusOr<bool> Conversation::NextEvent(const std::string& request_id, int64_t epoch,
                                             nlohmann::ordered_json& event) {
  absl::MutexLock lock(&mu_);
  news_.AwaitFor(mu_, kLook, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return !events_.empty() || ended_;
  });
  while (!events_.empty()) {
    event = std::move(events_.front());
    events_.pop_front();
    if (event.value("request_id", request_id) == request_id) return true;
  }
  if (!follow_status_.ok()) return follow_status_;
  if (ended_) return EndOf(job_);
  if (job_.epoch() > epoch) {
    return absl::AbortedError(
        absl::StrCat("the message is lost, the model is loaded again: ", job_.reason()));
  }
  // A stream that was opened again does not repeat what came in between.
  if (lost_contact_) return absl::AbortedError("the coordinator went away; the answer may be lost");
  return false;
}

absl::StatusOr<nlohmann::ordered_json> Conversation::Ask(
    const nlohmann::json& message, const std::function<void(const std::string& text)>& on_text) {
  const std::string request_id = absl::StrCat(++asked_);
  {
    absl::MutexLock lock(&mu_);
    lost_contact_ = false;
  }
  nlohmann::json sent = message;
  sent["request_id"] = request_id;
  v1::SayRequest request;
  request.set_job_id(job_id_);
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      sent.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace),
      request.mutable_message());
  if (!parsed.ok()) return absl::InternalError("the message is no JSON object");
  LL_ASSIGN_OR_RETURN(Client * client, session_.client());
  LL_ASSIGN_OR_RETURN(const v1::SayResponse said,
                      client->Call(client->jobs(), &v1::Jobs::Stub::Say, request));

  Clock& clock = session_.environment().clock;
  absl::Duration heard = clock.Steady();
  for (;;) {
    if (session_.environment().interrupt.raised()) return absl::CancelledError("Ctrl-C");
    nlohmann::ordered_json event;
    LL_ASSIGN_OR_RETURN(const bool came, NextEvent(request_id, said.epoch(), event));
    if (!came) {
      if (clock.Steady() - heard < kSilence) continue;
      return absl::DeadlineExceededError(
          absl::StrCat("no answer for ", absl::FormatDuration(kSilence)));
    }
    heard = clock.Steady();
    const std::string kind = event.value("event", "");
    if (kind == "token") on_text(event.value("text", ""));
    if (kind == "warning")
      session_.talk() << "llctl: " << Shown(event.value("message", "")) << std::endl;
    if (kind != "answer") continue;
    if (event.contains("error")) {
      return absl::InvalidArgumentError(event["error"].value("message", "refused"));
    }
    return event;
  }
}

}  // namespace ll
