#include "llctl/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

constexpr int kBarColumns = 20;

std::string Bar(const v1::Progress& progress) {
  if (progress.max_steps() <= 0) return "";
  const double share =
      std::clamp(static_cast<double>(progress.step()) / progress.max_steps(), 0.0, 1.0);
  const int filled = static_cast<int>(share * kBarColumns);
  return absl::StrCat("[", std::string(filled, '#'), std::string(kBarColumns - filled, '.'), "] ");
}

std::string StepLine(const v1::Progress& progress) {
  std::string line = absl::StrCat("step ", StepText(progress), "  loss ", LossText(progress));
  if (progress.tokens_per_second() > 0) {
    absl::StrAppend(&line, "  ", SpeedText(progress.tokens_per_second()), " tokens/s");
  }
  if (const auto eta = Eta(progress)) absl::StrAppend(&line, "  ETA ", HumanDuration(*eta));
  return line;
}

// "eval: perplexity 8.13, tokens 4096": the event's name and its scalars.
std::string EventLine(const google::protobuf::Struct& event) {
  const nlohmann::ordered_json json = ProtoToJson(event);
  std::vector<std::string> parts;
  for (const auto& [key, value] : json.items()) {
    if (key == "event" || key == "time" || value.is_structured()) continue;
    parts.push_back(
        absl::StrCat(key, " ", value.is_string() ? value.get<std::string>() : value.dump()));
  }
  return absl::StrCat(json.value("event", "event"), ": ", absl::StrJoin(parts, ", "));
}

}  // namespace

ProgressPrinter::ProgressPrinter(Session& session, bool quiet)
    : session_(session),
      style_(quiet || session.output().format() == OutputFormat::kName ? Style::kQuiet
             : !session.output().is_table()                            ? Style::kJsonLines
             : session.output().terminal()                             ? Style::kLive
                                                                       : Style::kPlain) {}

ProgressPrinter::~ProgressPrinter() {
  if (live_shown_) session_.output().stream() << std::endl;
}

void ProgressPrinter::Line(const std::string& text) {
  std::ostream& out = session_.output().stream();
  if (live_shown_) out << "\r\033[K";
  live_shown_ = false;
  out << text << std::endl;
}

void ProgressPrinter::Live(const std::string& text) {
  session_.output().stream() << "\r\033[K" << text << std::flush;
  live_shown_ = true;
}

void ProgressPrinter::OnJob(const v1::Job& job) {
  max_steps_ = std::max(job.progress().max_steps(), job.resolved_spec().max_steps());
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"job", ProtoToJson(job)}});
  if (style_ == Style::kQuiet) return;
  Line(JobLine(job, session_.output()));
}

void ProgressPrinter::OnStep(const v1::StepRecord& step) {
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"step", ProtoToJson(step)}});
  if (style_ == Style::kQuiet) return;
  progress_.set_step(step.step());
  progress_.set_max_steps(max_steps_);
  progress_.set_loss(step.loss());
  progress_.set_tokens_per_second(step.tokens_per_second());
  progress_.set_step_seconds(step.step_seconds());
  if (style_ == Style::kLive) {
    Live(Bar(progress_) + StepLine(progress_));
  } else {
    Line(StepLine(progress_));
  }
}

void ProgressPrinter::OnEvent(const google::protobuf::Struct& event) {
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"event", ProtoToJson(event)}});
  if (style_ == Style::kQuiet) return;
  Line(EventLine(event));
}

void ProgressPrinter::OnContact(const absl::Status& status) {
  if (live_shown_) Line("");
  session_.talk() << (status.ok() ? std::string("llctl: the coordinator is back")
                                  : absl::StrCat("llctl: ", std::string(status.message()),
                                                 "; trying again"))
                  << std::endl;
}

absl::StatusOr<int> WatchJob(Session& session, const std::string& job_id, int64_t from_step) {
  Followed followed;
  {
    ProgressPrinter printer(session);
    LL_ASSIGN_OR_RETURN(followed, FollowJob(session, job_id, from_step, printer));
  }
  if (followed.detached) {
    session.talk() << "llctl: detached; the job goes on (llctl watch " << job_id << ")"
                   << std::endl;
    return kExitDetached;
  }
  if (session.output().format() == OutputFormat::kName) session.output().stream() << job_id << "\n";
  return ExitCodeOf(followed.job.state());
}

}  // namespace ll
