#include "tests/trace/trace.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "base/ids.h"

namespace ll::trace {
namespace {

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed * 2 + 1) {}
  double Uniform() {  // (0, 1]
    return (static_cast<double>(random_.Next() >> 11) + 1) * 0x1p-53;
  }
  double Normal() {  // Box and Muller's
    return std::sqrt(-2 * std::log(Uniform())) * std::cos(2 * M_PI * Uniform());
  }
  int Below(int bound) { return static_cast<int>(random_.Below(static_cast<uint64_t>(bound))); }

 private:
  SeededRandom random_;
};

int DrawGpus(Draw& draw) {
  constexpr std::pair<double, int> kShares[] = {{0.60, 1},   {0.10, 2},   {0.10, 4}, {0.14, 8},
                                                {0.035, 16}, {0.015, 32}, {0.01, 64}};
  double u = draw.Uniform();
  for (const auto& [share, gpus] : kShares) {
    if ((u -= share) <= 0) return gpus;
  }
  return 64;
}

absl::Duration Seconds(double seconds) { return absl::Seconds(std::round(seconds)); }

// Twice as many arrivals at noon as at midnight.
double Rhythm(double seconds) { return 1 - std::cos(2 * M_PI * seconds / 86400) / 3; }

}  // namespace

std::vector<TraceJob> MakeTrace(const TraceOptions& options) {
  Draw draw(options.seed);
  std::vector<TraceJob> jobs(static_cast<size_t>(options.jobs));
  double work = 0;
  for (TraceJob& job : jobs) {
    job.gpus = std::min(DrawGpus(draw), options.gpus / 2);
    job.priority = draw.Below(5) == 0 ? 1 : 0;
    job.user = draw.Below(8);
    // Median 20 minutes, mean 1.3 hours; at most two days.
    job.run = Seconds(std::clamp(1200 * std::exp(1.6 * draw.Normal()), 60.0, 172800.0));
    const std::vector<double>& measured = options.estimate_ratios;
    const double ratio =
        measured.empty()
            ? std::exp(options.estimate_sigma * draw.Normal())
            : measured[static_cast<size_t>(draw.Below(static_cast<int>(measured.size())))];
    job.estimate = std::max(Seconds(absl::ToDoubleSeconds(job.run) * ratio), absl::Seconds(1));
    work += job.gpus * absl::ToDoubleSeconds(job.run);
  }
  const double mean_gap = work / (options.load * options.gpus) / options.jobs;
  double now = 0;
  for (TraceJob& job : jobs) {
    now += -std::log(draw.Uniform()) * mean_gap / Rhythm(now);
    job.arrival = Seconds(now);
  }
  return jobs;
}

Summary Summarise(const std::vector<TraceJob>& jobs, const Timeline& timeline, int gpus) {
  Summary out;
  std::vector<double> waits;
  std::map<int, std::pair<double, int>> slowdowns;
  std::vector<std::pair<absl::Duration, int>> changes;
  const absl::Duration last_arrival = jobs.back().arrival;
  double used = 0, high = 0;
  int highs = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const TraceJob& job = jobs[i];
    LL_CHECK_MSG(!timeline[i].empty(), "a job never ran");
    absl::Duration ran;
    for (const Interval& interval : timeline[i]) {
      LL_CHECK(interval.begin >= job.arrival && interval.end >= interval.begin);
      ran += interval.end - interval.begin;
      changes.emplace_back(interval.begin, job.gpus);
      changes.emplace_back(interval.end, -job.gpus);
      used += job.gpus * absl::ToDoubleSeconds(std::min(interval.end, last_arrival) -
                                               std::min(interval.begin, last_arrival));
    }
    LL_CHECK_MSG(ran == job.run, "a job did not get its run time");
    out.preemptions += static_cast<int>(timeline[i].size()) - 1;
    const double wait = absl::ToDoubleSeconds(timeline[i].back().end - job.arrival - job.run);
    waits.push_back(wait);
    if (job.priority > 0) {
      high += wait;
      ++highs;
    }
    const double run = absl::ToDoubleSeconds(job.run);
    auto& [sum, count] = slowdowns[job.user];
    sum += std::max(1.0, (wait + run) / std::max(run, 600.0));
    ++count;
  }
  std::sort(changes.begin(), changes.end());  // at the same moment ends come first
  int held = 0;
  for (const auto& [time, change] : changes) LL_CHECK((held += change) <= gpus);
  for (double wait : waits) out.mean_wait += wait / static_cast<double>(waits.size());
  std::sort(waits.begin(), waits.end());
  out.p95_wait = waits[waits.size() * 95 / 100];
  out.high_wait = high / std::max(1, highs);
  out.utilisation = used / (gpus * absl::ToDoubleSeconds(last_arrival));
  double sum = 0, squares = 0;
  for (const auto& [user, of] : slowdowns) {
    const double mean = of.first / of.second;
    sum += mean;
    squares += mean * mean;
  }
  out.fairness = sum * sum / (static_cast<double>(slowdowns.size()) * squares);
  return out;
}

}  // namespace ll::trace
