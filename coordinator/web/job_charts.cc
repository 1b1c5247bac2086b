#include "coordinator/web/job_charts.h"

#include <algorithm>

#include "base/status_macros.h"
#include "coordinator/web/chart.h"

namespace ll {
namespace {

Html Draw(const v1::Job& job) {
  LineChart loss{"Loss", "", "step", {}}, speed{"Throughput", "tokens/s", "step", {}};
  LineChart norm{"Gradient norm", "", "step", {}}, rate{"Learning rate", "", "step", {}};
  for (const v1::StepRecord& step : job.steps()) {
    const auto x = static_cast<double>(step.step());
    loss.points.emplace_back(x, step.loss());
    speed.points.emplace_back(x, step.tokens_per_second());
    norm.points.emplace_back(x, step.grad_norm());
    rate.points.emplace_back(x, step.learning_rate());
  }
  Html out;
  for (const LineChart* chart : {&loss, &speed, &norm, &rate}) AddChart(*chart, out);
  return out;
}

}  // namespace

absl::StatusOr<Html> JobCharts::Of(const v1::Job& job, const ApiClient::As& api) {
  const absl::Duration began = clock_.Steady();
  {
    absl::MutexLock lock(&mu_);
    const auto found = drawn_.find(job.job_id());
    if (found != drawn_.end()) {
      const Drawn& drawn = found->second;
      const bool current = drawn.epoch == job.epoch() && drawn.step == job.progress().step();
      if (current || began < drawn.good_until) return drawn.html;
    }
  }
  LL_ASSIGN_OR_RETURN(const v1::Job with_steps, api.Get(job.job_id(), /*steps=*/true));
  Drawn drawn;
  drawn.epoch = job.epoch();
  drawn.step = job.progress().step();
  drawn.html = Draw(with_steps);
  drawn.good_until = clock_.Steady() + 20 * (clock_.Steady() - began);
  absl::MutexLock lock(&mu_);
  if (drawn_.size() >= kMost && drawn_.count(job.job_id()) == 0) {
    drawn_.erase(std::min_element(drawn_.begin(), drawn_.end(), [](const auto& a, const auto& b) {
      return a.second.good_until < b.second.good_until;
    }));
  }
  Html html = drawn.html;
  drawn_[job.job_id()] = std::move(drawn);
  return html;
}

}  // namespace ll
