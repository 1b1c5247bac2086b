#include "coordinator/core/elastic.h"

#include "gtest/gtest.h"

namespace ll {
namespace {

CoreSpec Spec(int gpus, int max_gpus, int batch_rows = 0) {
  CoreSpec spec;
  spec.gpus = gpus;
  spec.max_gpus = max_gpus;
  spec.batch_rows = batch_rows;
  return spec;
}

TEST(Elastic, OnlyWithAMaximumAboveTheMinimum) {
  EXPECT_FALSE(IsElastic(Spec(4, 0)));
  EXPECT_FALSE(IsElastic(Spec(4, 4)));
  EXPECT_TRUE(IsElastic(Spec(4, 5)));
  EXPECT_EQ(MaxGpus(Spec(4, 0)), 4);
  EXPECT_EQ(MaxGpus(Spec(4, 8)), 8);
}

TEST(Elastic, TheBusiestRankSetsThePace) {
  const CoreSpec spec = Spec(4, 8, 8);  // two rows a rank
  EXPECT_EQ(Speedup(spec, 4), 1);
  EXPECT_EQ(Speedup(spec, 7), 1);  // one rank still has two
  EXPECT_EQ(Speedup(spec, 8), 2);
  EXPECT_EQ(Speedup(Spec(4, 8), 6), 1.5);  // rows not known
}

TEST(Elastic, ASizeIsUsefulWhereASmallerOneIsSlower) {
  EXPECT_EQ(UsefulSize(Spec(4, 8, 8), 7), 4);
  EXPECT_EQ(UsefulSize(Spec(4, 8, 8), 8), 8);
  EXPECT_EQ(UsefulSize(Spec(5, 8, 8), 7), 5);  // never below the minimum
  EXPECT_EQ(UsefulSize(Spec(4, 8), 7), 7);
  for (int rows = 1; rows <= 40; ++rows) {
    for (int ranks = 2; ranks <= 48; ++ranks) {
      const CoreSpec spec = Spec(2, 64, rows);
      const int useful = UsefulSize(spec, ranks);
      EXPECT_EQ(Speedup(spec, useful), Speedup(spec, ranks)) << rows << " rows, " << ranks;
      EXPECT_LE(useful, ranks);
      if (useful > 2) {
        EXPECT_LT(Speedup(spec, useful - 1), Speedup(spec, useful));
      }
    }
  }
}

TEST(Elastic, RanksThatShareARowComeTogether) {
  for (int rows = 0; rows <= 20; ++rows) {
    CoreSpec spec = Spec(4, 32, rows);
    spec.row_ranks = 4;
    EXPECT_EQ(WholeGroups(spec, 11), 8);
    for (int ranks = 4; ranks <= 32; ++ranks) {
      const int useful = UsefulSize(spec, ranks);
      EXPECT_EQ(useful % 4, 0) << rows << " rows, " << ranks;
      EXPECT_TRUE(useful >= 4 && useful <= ranks);
      EXPECT_EQ(Speedup(spec, useful), Speedup(spec, ranks));
      if (useful > 4) {
        EXPECT_LT(Speedup(spec, useful - 4), Speedup(spec, useful));
      }
    }
  }
}

TEST(WorthGrowing, AQuarterFasterAndMoreThanARestart) {
  const ElasticOptions options{absl::Minutes(1), absl::Minutes(30), absl::Minutes(2)};
  const auto worth = [&](int from, int to, absl::Duration remaining,
                         absl::Duration has_run = absl::ZeroDuration()) {
    return WorthGrowing(Spec(4, 16, 64), from, to, remaining, has_run, options);
  };
  EXPECT_TRUE(worth(4, 8, absl::Minutes(4)));  // two minutes instead of four
  EXPECT_FALSE(worth(4, 8, absl::Seconds(239)));
  EXPECT_TRUE(worth(4, 16, absl::Seconds(160)));  // 40 s instead of 160
  EXPECT_FALSE(worth(4, 16, absl::Seconds(159)));
  EXPECT_FALSE(worth(8, 9, absl::Hours(100)));  // seven or eight rows to nine: no quarter
  EXPECT_TRUE(worth(8, 11, absl::Hours(100)));
  EXPECT_FALSE(worth(8, 8, absl::Hours(100)));
  // Not known: as long as it has run.
  EXPECT_TRUE(worth(4, 8, absl::InfiniteDuration(), absl::Minutes(4)));
  EXPECT_FALSE(worth(4, 8, absl::InfiniteDuration(), absl::Minutes(3)));
}

TEST(DescribeSize, NamesRanksAndRange) {
  Job job;
  job.spec = Spec(4, 8);
  EXPECT_EQ(DescribeSize(job), "4 of 4-8");
  job.attempt.emplace();
  job.attempt->ranks.resize(6);
  EXPECT_EQ(RanksOf(job), 6);
  EXPECT_EQ(DescribeSize(job), "6 of 4-8");
}

}  // namespace
}  // namespace ll
