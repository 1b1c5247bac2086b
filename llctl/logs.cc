// llctl logs
#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/session.h"

namespace ll {
namespace {

constexpr absl::Duration kStreamDeadline = absl::Minutes(30);
constexpr absl::Duration kGiveUpAfter = absl::Minutes(5);
constexpr absl::Duration kLongestPause = absl::Seconds(2);

struct LogsOptions {
  v1::LogsRequest request;
  int64_t tail_bytes = -1;
};

// One stream; advances the request's offset past what was printed.
absl::Status ReadLogs(v1::LogsRequest& request, Client& client, Session& session, bool* answered) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(
      absl::Now() +
      (request.follow() ? kStreamDeadline : std::max(client.timeout(), absl::Minutes(5)))));
  Interrupt::Scope stop(session.environment().interrupt, [&context] { context.TryCancel(); });
  const auto stream = client.jobs().Logs(&context, request);
  v1::LogsResponse response;
  std::string held;
  Output& output = session.output();
  while (stream->Read(&response)) {
    *answered = true;
    held += response.data();
    // The rest of a control character comes with the next piece.
    const size_t whole = held.size() - (absl::EndsWith(held, "\xC2") ? 1 : 0);
    output.stream() << output.Foreign(held.substr(0, whole)) << std::flush;
    held.erase(0, whole);
    request.set_offset(response.offset() +
                       static_cast<int64_t>(response.data().size() - held.size()));
  }
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return client.Explain(status);
  output.stream() << held << std::flush;
  return absl::OkStatus();
}

// Why a log that was asked for has nothing in it.
absl::Status ExplainNothing(const v1::LogsRequest& request, Client& client, Session& session) {
  v1::GetRequest get;
  get.set_job_id(request.job_id());
  LL_ASSIGN_OR_RETURN(const v1::Job job, client.Call(client.jobs(), &v1::Jobs::Stub::Get, get));
  if (request.epoch() > job.epoch()) {
    return MakeFieldError({"epoch", absl::StrCat("at most the newest attempt, ", job.epoch()),
                           absl::StrCat(request.epoch())},
                          absl::StatusCode::kNotFound);
  }
  const int64_t ranks = std::max(job.resolved_spec().gpus(), job.resolved_spec().max_gpus());
  if (ranks > 0 && request.rank() >= ranks) {
    return MakeFieldError(
        {"rank", absl::StrCat("below the job's ", ranks), absl::StrCat(request.rank())},
        absl::StatusCode::kNotFound);
  }
  session.talk() << "llctl: rank " << request.rank()
                 << (job.epoch() == 0 ? " has not started; llctl why "
                                      : " has logged nothing; llctl watch ")
                 << job.job_id() << " says more\n";
  return absl::OkStatus();
}

absl::StatusOr<int> RunLogs(const LogsOptions& options, Session& session) {
  Interrupt& interrupt = session.environment().interrupt;
  if (options.request.follow()) interrupt.Arm();
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::LogsRequest request = options.request;
  LL_ASSIGN_OR_RETURN(*request.mutable_job_id(), JobIdOf(request.job_id(), *client));
  if (options.tail_bytes > 0) request.set_offset(-options.tail_bytes);
  absl::Duration pause = absl::Milliseconds(100);
  absl::Duration last_contact = session.environment().clock.Steady();
  bool ever_answered = false;
  while (true) {
    bool answered = false;
    const absl::Status status = ReadLogs(request, *client, session, &answered);
    if (interrupt.raised()) {
      session.talk() << "llctl: detached; the job goes on\n";
      return kExitDetached;
    }
    if (status.ok() && !ever_answered && !answered)
      LL_RETURN_IF_ERROR(ExplainNothing(request, *client, session));
    if (status.ok()) return kExitSuccess;
    const absl::Duration now = session.environment().clock.Steady();
    if (answered) {
      last_contact = now;
      ever_answered = true;
      pause = absl::Milliseconds(100);
    }
    // A coordinator that restarts ends the stream; the offset says where to go on.
    const bool passing = absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
                         absl::IsCancelled(status);
    if (!options.request.follow() || !ever_answered || !passing ||
        now - last_contact > kGiveUpAfter) {
      return status;
    }
    if (!interrupt.SleepFor(pause)) pause = std::min(pause * 2, kLongestPause);
  }
}

}  // namespace

void AddLogsCommand(CLI::App& app, Action& chosen) {
  struct Flags {
    std::string job_id;
    bool follow = false;
    int rank = 0;
    int64_t attempt = 0;
    int64_t tail_bytes = 0;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("logs", "Print a rank's log.");
  command->add_option("JOB", flags->job_id, kJobHelp)->required();
  command->add_flag("-f,--follow", flags->follow,
                    "Go on until the job has ended. Ctrl-C detaches.");
  command->add_option("--rank", flags->rank, "Whose log. Default: 0.")
      ->check(CLI::NonNegativeNumber.description(""))
      ->type_name("R");
  command->add_option("--epoch", flags->attempt, "Which attempt's log. Default: the newest.")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  command->add_option("--tail", flags->tail_bytes, "Only the last so many bytes.")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("BYTES");
  command->callback([flags, &chosen] {
    chosen = [flags](Session& session) {
      LogsOptions options;
      options.request.set_job_id(flags->job_id);
      options.request.set_follow(flags->follow);
      options.request.set_rank(flags->rank);
      options.request.set_epoch(flags->attempt);
      options.tail_bytes = flags->tail_bytes;
      return RunLogs(options, session);
    };
  });
}

}  // namespace ll
