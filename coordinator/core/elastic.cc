#include "coordinator/core/elastic.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

constexpr double kLeastGain = 1.25;

// Of the busiest group of ranks that share rows.
int RowsOfAGroup(const CoreSpec& spec, int ranks) {
  const int groups = ranks / spec.row_ranks;
  return (spec.batch_rows + groups - 1) / groups;
}

}  // namespace

int RanksOf(const Job& job) {
  return job.attempt.has_value() ? static_cast<int>(job.attempt->ranks.size()) : job.spec.gpus;
}

std::string DescribeSize(const Job& job) {
  return absl::StrCat(RanksOf(job), " of ", job.spec.gpus, "-", MaxGpus(job.spec));
}

double Speedup(const CoreSpec& spec, int ranks) {
  if (spec.batch_rows <= 0) return static_cast<double>(WholeGroups(spec, ranks)) / spec.gpus;
  return static_cast<double>(RowsOfAGroup(spec, spec.gpus)) / RowsOfAGroup(spec, ranks);
}

int WholeGroups(const CoreSpec& spec, int ranks) { return ranks - ranks % spec.row_ranks; }

int UsefulSize(const CoreSpec& spec, int ranks) {
  if (spec.batch_rows <= 0) return WholeGroups(spec, ranks);
  const int rows = RowsOfAGroup(spec, ranks);
  return std::max(spec.gpus, (spec.batch_rows + rows - 1) / rows * spec.row_ranks);
}

bool WorthGrowing(const CoreSpec& spec, int from, int to, absl::Duration remaining,
                  absl::Duration has_run, const ElasticOptions& options) {
  const double gain = Speedup(spec, to) / Speedup(spec, from);
  if (to <= from || gain < kLeastGain) return false;
  if (remaining == absl::InfiniteDuration()) remaining = has_run;
  return remaining - remaining / gain >= options.restart_cost;
}

}  // namespace ll
