#include "llctl/plot_data.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

// absl::StrCat keeps six digits, which is not the number.
std::string Exact(double value) {
  char buffer[32];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value);
  return {buffer, end.ptr};
}

std::string CurveName(const v1::Job& job) {
  const std::string name = OneLine(job.spec().name());
  return name.empty() ? job.job_id() : absl::StrCat(name, " (", job.job_id(), ")");
}

using StepValue = double (v1::StepRecord::*)() const;

CurvePanel PanelOf(const std::string& title, const std::string& unit, StepValue value,
                   const std::vector<v1::Job>& jobs) {
  CurvePanel panel{title, unit, {}};
  for (const v1::Job& job : jobs) {
    Curve& curve = panel.curves.emplace_back();
    curve.name = CurveName(job);
    for (const v1::StepRecord& step : job.steps())
      curve.points.emplace_back(static_cast<double>(step.step()), (step.*value)());
  }
  return panel;
}

}  // namespace

std::string StepsCsv(const std::vector<v1::Job>& jobs) {
  std::string csv =
      "job_id,step,epoch,time,loss,grad_norm,learning_rate,tokens,step_seconds,tokens_per_second,"
      "mfu,peak_bytes\n";
  for (const v1::Job& job : jobs) {
    for (const v1::StepRecord& s : job.steps()) {
      absl::StrAppend(&csv, job.job_id(), ",", s.step(), ",", s.epoch(), ",",
                      s.has_time() ? Rfc3339(ToTime(s.time())) : "", ",", Exact(s.loss()), ",",
                      Exact(s.grad_norm()), ",", Exact(s.learning_rate()), ",", s.tokens(), ",",
                      Exact(s.step_seconds()), ",", Exact(s.tokens_per_second()), ",");
      absl::StrAppend(&csv, s.has_mfu() ? Exact(s.mfu()) : "", ",", s.peak_bytes(), "\n");
    }
  }
  return csv;
}

CurveFigure StepsFigure(const std::vector<v1::Job>& jobs) {
  CurveFigure figure;
  figure.title = jobs.size() == 1 ? CurveName(jobs[0]) : absl::StrCat(jobs.size(), " jobs");
  figure.panels = {
      PanelOf("Loss", "nats per token", &v1::StepRecord::loss, jobs),
      PanelOf("Throughput", "tokens/s", &v1::StepRecord::tokens_per_second, jobs),
      PanelOf("Gradient norm", "", &v1::StepRecord::grad_norm, jobs),
      PanelOf("Learning rate", "", &v1::StepRecord::learning_rate, jobs),
  };
  return figure;
}

}  // namespace ll
