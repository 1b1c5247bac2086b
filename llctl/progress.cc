#include "llctl/progress.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "base/terminal_text.h"
#include "llctl/errors.h"
#include "llctl/live_picture.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

std::string StepLine(const v1::Progress& progress) {
  std::string line = absl::StrCat("step ", StepText(progress), "  loss ", LossText(progress));
  if (progress.tokens_per_second() > 0) {
    absl::StrAppend(&line, "  ", SpeedText(progress.tokens_per_second()), " tokens/s");
  }
  if (const auto eta = Eta(progress)) absl::StrAppend(&line, "  ETA ", HumanDuration(*eta));
  return line;
}

// "eval: step 40, perplexity 8.13, tokens 4096": the event's name and its scalars, as people read
// them; where it lies comes last. What only programs compare is left to -o json.
std::string EventLine(const google::protobuf::Struct& event) {
  const nlohmann::ordered_json json = ProtoToJson(event);
  const std::string name = json.value("event", "event");
  std::vector<std::string> parts;
  std::string what, step, place;
  for (const auto& [key, value] : json.items()) {
    const bool rank_0 = key == "rank" && value.is_number() && value.get<double>() == 0;
    if (key == "event" || key == "time" || key == "manifest_sha256" || rank_0 ||
        value.is_structured() || value.is_null())
      continue;
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (key == name) {  // the phase of a phase
      what = text;
    } else if (key == "step") {
      step = absl::StrCat("step ", text);
    } else if (key == "path") {
      place = text;
    } else if (key == "bytes" && value.is_number()) {
      parts.push_back(HumanBytes(static_cast<int64_t>(value.get<double>())));
    } else if (key == "seconds" && value.is_number()) {
      parts.push_back(HumanDuration(absl::Seconds(value.get<double>())));
    } else {
      parts.push_back(absl::StrCat(key, " ", text));
    }
  }
  if (!place.empty()) parts.push_back(place);
  if (!step.empty()) parts.insert(parts.begin(), step);
  if (!what.empty()) parts.insert(parts.begin(), what);
  return Shown(parts.empty() ? name : absl::StrCat(name, ": ", absl::StrJoin(parts, ", ")));
}

}  // namespace

ProgressPrinter::ProgressPrinter(Session& session, bool quiet)
    : session_(session),
      style_(quiet || session.output().format() == OutputFormat::kName ? Style::kQuiet
             : !session.output().is_table()                            ? Style::kJsonLines
             : session.output().terminal()                             ? Style::kLive
                                                                       : Style::kPlain) {
  if (style_ == Style::kLive) picture_ = std::make_unique<LivePicture>(session);
}

ProgressPrinter::~ProgressPrinter() = default;

void ProgressPrinter::Line(const std::string& text) {
  if (picture_ != nullptr) return picture_->PrintAbove(text);
  session_.output().stream() << text << std::endl;
}

void ProgressPrinter::OnJob(const v1::Job& job) {
  max_steps_ = std::max(job.progress().max_steps(), job.resolved_spec().max_steps());
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"job", ProtoToJson(job)}});
  if (style_ == Style::kQuiet) return;
  if (picture_ != nullptr) return picture_->TakeJob(job);
  Line(JobLine(job, session_.output()));
}

void ProgressPrinter::OnStep(const v1::StepRecord& step) {
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"step", ProtoToJson(step)}});
  if (style_ == Style::kQuiet) return;
  if (picture_ != nullptr) return picture_->TakeStep(step);
  v1::Progress progress;
  progress.set_step(step.step());
  progress.set_max_steps(max_steps_);
  progress.set_loss(step.loss());
  progress.set_tokens_per_second(step.tokens_per_second());
  progress.set_step_seconds(step.step_seconds());
  Line(StepLine(progress));
}

void ProgressPrinter::OnEvent(const google::protobuf::Struct& event) {
  if (style_ == Style::kJsonLines)
    return session_.output().PrintJsonLine({{"event", ProtoToJson(event)}});
  if (style_ == Style::kQuiet) return;
  Line(EventLine(event));
}

void ProgressPrinter::OnContact(const absl::Status& status) {
  if (picture_ != nullptr) {
    // stderr is the same terminal: a line there would stand in the picture.
    return picture_->SetTrouble(
        status.ok() ? "" : absl::StrCat("trying again: ", std::string(status.message())));
  }
  session_.talk() << (status.ok()
                          ? std::string("llctl: the coordinator is back")
                          : absl::StrCat("llctl: ", Shown(status.message()), "; trying again"))
                  << std::endl;
}

absl::StatusOr<int> WatchJob(Session& session, const std::string& job_id, int64_t from_step) {
  Followed followed;
  // Before the picture's thread exists.
  session.environment().interrupt.Arm();
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
