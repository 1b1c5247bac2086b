// Which rank holds the others up: from the time each rank computed, without what it waited for the
// others. Pure; every rank sees the same figures and judges alike.
//
// A rank's score is its own compute time per unit of work over the median of the ranks', smoothed
// with weight 1/8 (about the last 8 steps count). A straggler has a score of at least
// kStragglerScore for kStragglerSteps steps in a row, and stops being one after as many below it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ll {

inline constexpr double kStragglerScore = 1.3;
inline constexpr int kStragglerSteps = 10;

struct StragglerNews {
  int rank = 0;
  bool slow = false;  // it became one; false: it no longer is
  double score = 0;
};

// Not thread-safe. Not kept with a checkpoint: a relaunch may be on other hosts.
class StragglerWatch {
 public:
  explicit StragglerWatch(int ranks);

  // One step: seconds that each rank computed and the work it had (rows' tokens). A rank without
  // work in this step is left out of it. Returns what changed, by rank.
  std::vector<StragglerNews> Step(const std::vector<double>& seconds,
                                  const std::vector<double>& work);

  // 1 before the first step.
  double score(int rank) const { return ranks_[static_cast<size_t>(rank)].score; }
  // Of the highest score, the first of equals.
  int slowest() const;

 private:
  struct Rank {
    double score = 1;
    int in_a_row = 0;  // steps on the other side of the threshold than `slow` says
    bool slow = false, known = false;
  };
  std::vector<Rank> ranks_;
};

}  // namespace ll
