#include "coordinator/core/elastic.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

constexpr double kLeastGain = 1.25;

// Of the busiest rank.
int RowsOfARank(const CoreSpec& spec, int ranks) { return (spec.batch_rows + ranks - 1) / ranks; }

}  // namespace

int RanksOf(const Job& job) {
  return job.attempt.has_value() ? static_cast<int>(job.attempt->ranks.size()) : job.spec.gpus;
}

std::string DescribeSize(const Job& job) {
  return absl::StrCat(RanksOf(job), " of ", job.spec.gpus, "-", MaxGpus(job.spec));
}

double Speedup(const CoreSpec& spec, int ranks) {
  if (spec.batch_rows <= 0) return static_cast<double>(ranks) / spec.gpus;
  return static_cast<double>(RowsOfARank(spec, spec.gpus)) / RowsOfARank(spec, ranks);
}

int UsefulSize(const CoreSpec& spec, int ranks) {
  if (spec.batch_rows <= 0) return ranks;
  const int rows = RowsOfARank(spec, ranks);
  return std::max(spec.gpus, (spec.batch_rows + rows - 1) / rows);
}

bool WorthGrowing(const CoreSpec& spec, int from, int to, absl::Duration remaining,
                  absl::Duration has_run, const ElasticOptions& options) {
  const double gain = Speedup(spec, to) / Speedup(spec, from);
  if (to <= from || gain < kLeastGain) return false;
  if (remaining == absl::InfiniteDuration()) remaining = has_run;
  return remaining - remaining / gain >= options.restart_cost;
}

}  // namespace ll
