#include "model/segments.h"

#include <random>

#include "gmock/gmock.h"

namespace ll {
namespace {

using ::testing::ElementsAre;

TEST(SegmentBoundaries, MatchesTheMethodsExamples) {
  EXPECT_THAT(SegmentBoundaries(16, 4, false), ElementsAre(0, 4, 8, 12, 16));
  EXPECT_THAT(SegmentBoundaries(16, 4, true), ElementsAre(0, 2, 6, 10, 14, 16));
  EXPECT_THAT(SegmentBoundaries(4274, 2048, false), ElementsAre(0, 2048, 4096, 4274));
  EXPECT_THAT(SegmentBoundaries(4274, 2048, true), ElementsAre(0, 1024, 3072, 4274));
  EXPECT_THAT(SegmentBoundaries(9243, 8192, false), ElementsAre(0, 8192, 9243));
  EXPECT_THAT(SegmentBoundaries(9243, 8192, true), ElementsAre(0, 4096, 9243));
}

TEST(SegmentBoundaries, OddGroupStartsWithItsFloorHalf) {
  EXPECT_THAT(SegmentBoundaries(11, 5, true), ElementsAre(0, 2, 7, 11));
  EXPECT_THAT(SegmentBoundaries(3, 1, true), ElementsAre(0, 1, 2, 3));
}

// Whatever the numbers: strictly increasing, from 0 to the length, no segment longer than the
// group.
TEST(SegmentBoundaries, HoldsForRandomLengths) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 2000; ++i) {
    const int64_t length = 1 + random() % 5000, group = 1 + random() % 3000;
    const std::vector<int64_t> b = SegmentBoundaries(length, group, i % 2 == 0);
    ASSERT_EQ(b.front(), 0);
    ASSERT_EQ(b.back(), length);
    for (size_t k = 0; k + 1 < b.size(); ++k) {
      ASSERT_LT(b[k], b[k + 1]);
      ASSERT_LE(b[k + 1] - b[k], group);
    }
  }
}

TEST(RowSegments, RestartsTheGridAtEachDocument) {
  EXPECT_THAT(
      RowSegments(12, {{0, 5}, {5, 12}}, 4, true),
      ElementsAre(Segment{0, 2}, Segment{2, 5}, Segment{5, 7}, Segment{7, 11}, Segment{11, 12}));
  EXPECT_THAT(RowSegments(12, {{0, 5}, {5, 12}}, 0, true),
              ElementsAre(Segment{0, 5}, Segment{5, 12}));
}

TEST(EqualTiles, AreFewAndOfMultiplesOf64) {
  EXPECT_THAT(EqualTiles(100, 8192), ElementsAre(Segment{0, 100}));
  EXPECT_THAT(EqualTiles(8192, 8192), ElementsAre(Segment{0, 8192}));
  EXPECT_THAT(EqualTiles(8200, 8192), ElementsAre(Segment{0, 4160}, Segment{4160, 8200}));
  EXPECT_THAT(EqualTiles(16300, 8192), ElementsAre(Segment{0, 8192}, Segment{8192, 16300}));
  EXPECT_THAT(EqualTiles(7, 3), ElementsAre(Segment{0, 3}, Segment{3, 6}, Segment{6, 7}));
}

TEST(PartOf, CutsRunsThatLieOneBehindTheOther) {
  const std::vector<Segment> runs = {{10, 14}, {30, 31}, {50, 60}};  // as rows 0-4, 4-5, 5-15
  EXPECT_THAT(PartOf(runs, {0, 15}), testing::ElementsAreArray(runs));
  EXPECT_THAT(PartOf(runs, {0, 3}), ElementsAre(Segment{10, 13}));
  EXPECT_THAT(PartOf(runs, {3, 6}), ElementsAre(Segment{13, 14}, Segment{30, 31}, Segment{50, 51}));
  EXPECT_THAT(PartOf(runs, {4, 5}), ElementsAre(Segment{30, 31}));
  EXPECT_THAT(PartOf(runs, {14, 15}), ElementsAre(Segment{59, 60}));
}

TEST(BatchSegments, ThreeCallsForQuarterGroups) {
  EXPECT_THAT(BatchSegments(RowSegments(16, {}, 4, false)), ElementsAre(SegmentBatch{0, 4, 4, 4}));
  EXPECT_THAT(BatchSegments(RowSegments(16, {}, 4, true)),
              ElementsAre(SegmentBatch{0, 14, 2, 2}, SegmentBatch{2, 4, 3, 4}));
}

TEST(BatchSegments, CoversEverySegmentOnce) {
  const std::vector<Segment> segments =
      RowSegments(40, {{0, 3}, {3, 17}, {17, 20}, {20, 40}}, 6, true);
  std::vector<Segment> seen;
  for (const SegmentBatch& b : BatchSegments(segments)) {
    for (int64_t i = 0; i < b.count; ++i)
      seen.push_back({b.begin + i * b.stride, b.begin + i * b.stride + b.length});
  }
  EXPECT_THAT(seen, testing::UnorderedElementsAreArray(segments));
}

}  // namespace
}  // namespace ll
