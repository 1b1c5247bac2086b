#include "llctl/watch_frame.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/format.h"
#include "llctl/output.h"
#include "llctl/terminal_chart.h"
#include "llctl/terminal_text.h"
#include "model/report/axis.h"

namespace ll {
namespace {

constexpr size_t kMostPoints = 8192;
constexpr int kKeptStretches = 1024;  // of up to four points each
constexpr int kWidestBar = 40, kHighestChart = 14, kLeastChart = 4;

std::string NumbersLine(const v1::Progress& p) {
  std::string line = absl::StrCat("loss ", LossText(p));
  if (p.tokens_per_second() > 0)
    absl::StrAppend(&line, "  ", SpeedText(p.tokens_per_second()), " tokens/s");
  if (p.step_seconds() > 0) absl::StrAppendFormat(&line, "  %.3g s/step", p.step_seconds());
  if (p.grad_norm() > 0) absl::StrAppendFormat(&line, "  gradient norm %.3g", p.grad_norm());
  if (p.learning_rate() > 0) absl::StrAppendFormat(&line, "  lr %.3g", p.learning_rate());
  if (p.has_mfu()) absl::StrAppendFormat(&line, "  MFU %.1f %%", 100 * p.mfu());
  if (p.peak_bytes() > 0) absl::StrAppend(&line, "  ", HumanBytes(p.peak_bytes()), " peak");
  return line;
}

}  // namespace

void WatchFrame::TakeJob(const v1::Job& job) {
  job_ = job;
  newest_.set_max_steps(
      std::max({newest_.max_steps(), job.progress().max_steps(), job.resolved_spec().max_steps()}));
}

void WatchFrame::TakeStep(const v1::StepRecord& step) {
  newest_.set_step(step.step());
  newest_.set_loss(step.loss());
  newest_.set_grad_norm(step.grad_norm());
  newest_.set_learning_rate(step.learning_rate());
  newest_.set_tokens_per_second(step.tokens_per_second());
  newest_.set_step_seconds(step.step_seconds());
  newest_.set_peak_bytes(step.peak_bytes());
  if (step.has_mfu()) newest_.set_mfu(step.mfu());
  const auto x = static_cast<double>(step.step());
  // Another attempt goes over steps that the one before had taken.
  while (!loss_.empty() && loss_.back().first >= x) loss_.pop_back();
  loss_.emplace_back(x, step.loss());
  if (loss_.size() > kMostPoints) loss_ = Thin(loss_, kKeptStretches);
}

std::vector<std::string> WatchFrame::Lines(TerminalSize size, bool utf8, bool color) const {
  const int columns = size.columns > 0 ? size.columns : 80, rows = size.rows > 0 ? size.rows : 24;
  std::string state = absl::StrCat(job_.job_id(), " ", StateText(job_.state(), color));
  if (job_.epoch() > 1) absl::StrAppend(&state, " (attempt ", job_.epoch(), ")");
  if (!job_.reason().empty()) absl::StrAppend(&state, ": ", OneLine(job_.reason()));
  std::vector<std::string> lines = {state};
  if (!trouble_.empty()) lines.push_back(OneLine(trouble_));
  if (newest_.step() == 0) return lines;
  std::string progress;
  if (newest_.max_steps() > 0) {
    const double share = static_cast<double>(newest_.step()) / newest_.max_steps();
    const std::string bar = ProgressBar(share, std::clamp(columns - 40, 10, kWidestBar), utf8);
    progress = absl::StrFormat("[%s] %3.0f %%  ", bar, std::min(1.0, share) * 100);
  }
  absl::StrAppend(&progress, "step ", StepText(newest_));
  if (const auto eta = Eta(newest_)) absl::StrAppend(&progress, "  ETA ", HumanDuration(*eta));
  lines.push_back(progress);
  lines.push_back(NumbersLine(newest_));
  // One line stays free for the cursor, one is the chart's own axis.
  const int room = rows - static_cast<int>(lines.size()) - 3;
  if (room < kLeastChart) return lines;
  const auto chart = TerminalChart(loss_, columns - 1, std::min(room, kHighestChart), utf8);
  if (!chart.empty()) lines.push_back("     loss");
  lines.insert(lines.end(), chart.begin(), chart.end());
  return lines;
}

}  // namespace ll
