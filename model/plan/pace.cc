#include "model/plan/pace.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ll {
namespace {

// The median absolute deviation of a normal distribution is so much less than its standard one.
constexpr double kDeviationOfMad = 1.4826;
constexpr double kLeastError = 0.02;   // what no number of steps tells: another load, another phase
constexpr double kOneStepError = 0.5;  // a first step warms caches up
constexpr int kFewSteps = 4;

double MedianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return (*middle + *std::max_element(values.begin(), middle)) / 2;
}

}  // namespace

void StepPace::Add(int64_t epoch, int64_t step, double step_seconds, absl::Time time) {
  if (epoch != epoch_ || (!window_.empty() && step <= window_.back().step)) window_.clear();
  epoch_ = epoch;
  if (!std::isfinite(step_seconds) || step_seconds <= 0) return;
  if (window_.size() == kWindow) window_.pop_front();
  window_.push_back({step, step_seconds, time});
}

double StepPace::median_seconds() const {
  if (window_.empty()) return 0;
  std::vector<double> seconds;
  for (const Sample& sample : window_) seconds.push_back(sample.seconds);
  return MedianOf(std::move(seconds));
}

double StepPace::wall_seconds() const {
  if (window_.size() < 2) return 0;
  const absl::Duration between = window_.back().time - window_.front().time;
  const auto steps = static_cast<double>(window_.back().step - window_.front().step);
  return std::max(0.0, absl::ToDoubleSeconds(between) / steps);
}

double StepPace::relative_error() const {
  if (window_.size() < kFewSteps) return kOneStepError / static_cast<double>(window_.size() + 1);
  const double median = median_seconds();
  std::vector<double> apart;
  for (const Sample& sample : window_) apart.push_back(std::abs(sample.seconds - median));
  const double deviation = kDeviationOfMad * MedianOf(std::move(apart));
  return kLeastError + 2 * deviation / (median * std::sqrt(static_cast<double>(window_.size())));
}

std::pair<absl::Duration, absl::Duration> StepPace::TimeFor(int64_t steps) const {
  if (window_.empty()) return {absl::InfiniteDuration(), absl::InfiniteDuration()};
  const double median = median_seconds(), wall = wall_seconds();
  const double quick = wall > 0 ? std::min(median, wall) : median, slow = std::max(median, wall);
  const double error = relative_error(), count = static_cast<double>(steps);
  return {absl::Seconds(count * quick * (1 - error)), absl::Seconds(count * slow * (1 + error))};
}

}  // namespace ll
