#include "llctl/follow.h"

#include <algorithm>
#include <utility>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "proto/jobs.grpc.pb.h"

namespace ll {
namespace {

constexpr absl::Duration kFirstPause = absl::Milliseconds(100);
constexpr absl::Duration kLongestPause = absl::Seconds(2);
constexpr absl::Duration kGiveUpAfter = absl::Minutes(5);
// No wait is endless: a stream is opened anew after this time.
constexpr absl::Duration kStreamDeadline = absl::Minutes(30);

class Follower {
 public:
  Follower(Session& session, Client& client, std::string job_id, int64_t from_step,
           JobEvents& events)
      : session_(session),
        client_(client),
        job_id_(std::move(job_id)),
        from_step_(from_step),
        events_(events) {}

  absl::StatusOr<Followed> Run() {
    absl::Duration pause = kFirstPause;
    absl::Duration last_contact = session_.environment().clock.Steady();
    bool away = false, reached = false;
    while (true) {
      bool answered = false;
      const absl::Status status = ReadStream(&answered, &away);
      if (session_.environment().interrupt.raised()) return Followed{job_, /*detached=*/true};
      const absl::Duration now = session_.environment().clock.Steady();
      if (answered) {
        reached = true;
        last_contact = now;
        pause = kFirstPause;
      }
      if (seen_ && HasEnded(job_.state())) return Followed{job_, /*detached=*/false};
      if (!status.ok() && !IsPassing(status)) return status;
      // Of a job that has ended the state comes last: what was told counts, not whether it was
      // seen.
      const absl::Duration patience = reached ? kGiveUpAfter : client_.patience();
      if (!status.ok() && now - last_contact >= patience) return status;
      if (absl::IsUnavailable(status) && !away) {
        away = true;
        events_.OnContact(status);
      }
      if (session_.environment().interrupt.SleepFor(pause))
        return Followed{job_, /*detached=*/true};
      pause = std::min(pause * 2, kLongestPause);
    }
  }

 private:
  // A stream also ends because the coordinator is stopping, or dropped a reader that was too slow.
  static bool IsPassing(const absl::Status& status) {
    return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
           absl::IsAborted(status) || absl::IsCancelled(status) ||
           absl::IsResourceExhausted(status);
  }

  absl::Status ReadStream(bool* answered, bool* away) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + kStreamDeadline));
    Interrupt::Scope stop(session_.environment().interrupt, [&context] { context.TryCancel(); });
    v1::WatchRequest request;
    request.set_job_id(job_id_);
    // A coordinator that knows no tokens starts at the step.
    request.set_from_step(from_step_);
    request.set_resume_token(resume_token_);
    const auto stream = client_.jobs().Watch(&context, request);
    const auto in_contact = [&] {
      *answered = true;
      if (!std::exchange(*away, false)) return;
      events_.OnContact(absl::OkStatus());
    };
    if (!resume_token_.empty()) {
      // It may have nothing to say for long.
      stream->WaitForInitialMetadata();
      if (context.GetServerInitialMetadata().count("ll-resumed") > 0) in_contact();
    }
    v1::WatchResponse response;
    while (stream->Read(&response)) {
      in_contact();
      Deliver(response);
      resume_token_ = response.resume_token();
    }
    const grpc::Status status = stream->Finish();
    return status.ok() ? absl::OkStatus() : client_.Explain(status);
  }

  void Deliver(const v1::WatchResponse& response) {
    switch (response.what_case()) {
      case v1::WatchResponse::kJob: {
        const bool news = !seen_ || job_.state() != response.job().state() ||
                          job_.reason() != response.job().reason() ||
                          job_.epoch() != response.job().epoch();
        job_ = response.job();
        seen_ = true;
        if (news) events_.OnJob(job_);
        break;
      }
      case v1::WatchResponse::kStep:
        from_step_ = response.step().step() + 1;
        events_.OnStep(response.step());
        break;
      case v1::WatchResponse::kEvent:
        events_.OnEvent(response.event());
        break;
      case v1::WatchResponse::WHAT_NOT_SET:
        break;  // a newer coordinator's kind of message
    }
  }

  Session& session_;
  Client& client_;
  std::string job_id_;
  int64_t from_step_;
  std::string resume_token_;  // of the last message; empty: there was none
  JobEvents& events_;
  v1::Job job_;
  bool seen_ = false;
};

}  // namespace

absl::StatusOr<Followed> FollowJob(Session& session, const std::string& job_id, int64_t from_step,
                                   JobEvents& events) {
  session.environment().interrupt.Arm();
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  return Follower(session, *client, job_id, from_step, events).Run();
}

}  // namespace ll
