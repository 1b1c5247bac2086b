#include "worker/trainer/guard/straggler.h"

#include <algorithm>

#include "base/check.h"

namespace ll {
namespace {
constexpr double kWeight = 1.0 / 8;  // of the newest step
}  // namespace

StragglerWatch::StragglerWatch(int ranks) : ranks_(static_cast<size_t>(ranks)) {}

std::vector<StragglerNews> StragglerWatch::Step(const std::vector<double>& seconds,
                                                const std::vector<double>& work) {
  LL_CHECK(seconds.size() == ranks_.size() && work.size() == ranks_.size());
  std::vector<double> paces;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (work[r] > 0) paces.push_back(seconds[r] / work[r]);
  }
  if (paces.size() < 2) return {};
  // The lower one of an even number: with two ranks the slow one is measured by the fast one.
  const auto middle = paces.begin() + static_cast<ptrdiff_t>((paces.size() - 1) / 2);
  std::nth_element(paces.begin(), middle, paces.end());
  const double median = *middle;
  if (median <= 0) return {};
  std::vector<StragglerNews> news;
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (work[r] <= 0) continue;
    Rank& rank = ranks_[r];
    const double now = seconds[r] / work[r] / median;
    rank.score = rank.known ? rank.score + kWeight * (now - rank.score) : now;
    rank.known = true;
    rank.in_a_row = (rank.score >= kStragglerScore) != rank.slow ? rank.in_a_row + 1 : 0;
    if (rank.in_a_row < kStragglerSteps) continue;
    rank.slow = !rank.slow;
    rank.in_a_row = 0;
    news.push_back({static_cast<int>(r), rank.slow, rank.score});
  }
  return news;
}

int StragglerWatch::slowest() const {
  const auto most = std::max_element(
      ranks_.begin(), ranks_.end(), [](const Rank& a, const Rank& b) { return a.score < b.score; });
  return static_cast<int>(most - ranks_.begin());
}

}  // namespace ll
