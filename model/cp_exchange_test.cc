// The exchange against what the dense attention mask says is needed, pair by pair.
#include "model/cp_exchange.h"

#include <algorithm>
#include <random>
#include <set>
#include <tuple>

#include "gmock/gmock.h"

namespace ll {
namespace {

using ::testing::ElementsAre;

struct RowShape {
  int64_t tokens = 0, group = 0, heads = 0, kv_heads = 0;
  bool shifts = true;
  std::vector<std::pair<int64_t, int64_t>> documents;
  int ranks = 1;

  std::vector<CpTransfer> Exchange() const {
    const std::vector<Segment> segments[2] = {RowSegments(tokens, documents, group, false),
                                              RowSegments(tokens, documents, group, shifts)};
    return CpExchange(tokens, segments, MakeHeadRuns(heads, kv_heads, shifts), ranks);
  }
  int RankOf(int64_t token) const {
    for (int rank = 0; rank < ranks; ++rank) {
      const Segment s = CpShard(tokens, ranks, rank);
      if (s.begin <= token && token < s.end) return rank;
    }
    return -1;
  }
  // Whether query t of `head` sees key u, straight from the definition. group 0 = full attention.
  bool Sees(int64_t head, int64_t t, int64_t u) const {
    const bool shifted = shifts && head >= heads / 2;
    std::pair<int64_t, int64_t> document = {0, tokens};
    for (const auto& d : documents) {
      if (d.first <= t && t < d.second) document = d;
    }
    if (u < document.first || u > t) return false;
    if (group == 0) return true;
    const int64_t offset = shifted ? group - group / 2 : 0;
    const auto number = [&](int64_t token) { return (token - document.first + offset) / group; };
    return number(t) == number(u) || (shifted && group == 1 && t == u);
  }
};

// (to, from, token, KV head) of everything a rank does not have itself.
using Needs = std::set<std::tuple<int, int, int64_t, int64_t>>;

Needs NeedsOfMask(const RowShape& row) {
  Needs needs;
  const int64_t ratio = row.heads / row.kv_heads;
  for (int64_t head = 0; head < row.heads; ++head) {
    for (int64_t t = 0; t < row.tokens; ++t) {
      const int to = row.RankOf(t);
      for (int64_t u = 0; u < CpShard(row.tokens, row.ranks, to).begin; ++u) {
        if (row.Sees(head, t, u)) needs.insert({to, row.RankOf(u), u, head / ratio});
      }
    }
  }
  return needs;
}

RowShape RandomShape(std::mt19937& random) {
  RowShape row;
  row.kv_heads = 1 + random() % 4;
  row.heads = row.kv_heads * (1 + random() % 3);
  row.tokens = 1 + random() % 90;
  row.group = random() % 5 == 0 ? 0 : 1 + random() % (row.tokens + 4);
  row.shifts = row.group > 0 && random() % 4 != 0;
  row.ranks = 1 + random() % 9;
  if (random() % 2 == 0) return row;
  for (int64_t at = 0; at < row.tokens;) {
    const int64_t end = std::min<int64_t>(row.tokens, at + 1 + random() % 40);
    row.documents.emplace_back(at, end);
    at = end;
  }
  return row;
}

TEST(CpExchange, ListsWhatTheMaskNeedsAndNothingElse) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 400; ++i) {
    const RowShape row = RandomShape(random);
    SCOPED_TRACE(testing::Message()
                 << "tokens " << row.tokens << " group " << row.group << " heads " << row.heads
                 << "/" << row.kv_heads << " documents " << row.documents.size() << " ranks "
                 << row.ranks);
    // Of the tokens between the first needed one and the shard all are needed: a segment is whole.
    Needs listed;
    for (const CpTransfer& t : row.Exchange()) {
      for (int64_t token = t.tokens.begin; token < t.tokens.end; ++token) {
        ASSERT_EQ(row.RankOf(token), t.from);
        for (int64_t kv = t.kv_begin; kv < t.kv_end; ++kv) {
          ASSERT_TRUE(listed.insert({t.to, t.from, token, kv}).second) << "listed twice";
        }
      }
    }
    ASSERT_EQ(listed, NeedsOfMask(row));
  }
}

// The queries of the local segments and of the reaching one cover the shard once, and each sees the
// keys that the mask allows.
TEST(ShardSegments, GiveEachQueryTheKeysOfTheMask) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int i = 0; i < 200; ++i) {
    const RowShape row = RandomShape(random);
    for (const bool shifted : {false, true}) {
      if (shifted && !row.shifts) continue;
      if (!shifted && row.shifts && row.heads < 2) continue;  // its only head is shifted
      const int64_t head = shifted ? row.heads - 1 : 0;
      const auto segments = RowSegments(row.tokens, row.documents, row.group, shifted);
      for (int rank = 0; rank < row.ranks; ++rank) {
        const Segment shard = CpShard(row.tokens, row.ranks, rank);
        CpSegments mine = ShardSegments(segments, shard);
        if (mine.reaching) mine.local.insert(mine.local.begin(), *mine.reaching);
        int64_t next = shard.begin;
        for (const Segment& s : mine.local) {
          for (int64_t t = std::max(s.begin, shard.begin); t < s.end; ++t, ++next) {
            ASSERT_EQ(t, next);
            for (int64_t u = 0; u < row.tokens; ++u)
              ASSERT_EQ(u >= s.begin && u <= t, row.Sees(head, t, u)) << t << " " << u;
          }
        }
        ASSERT_EQ(next, shard.end);
      }
    }
  }
}

// training-peers' figure for S²-Attn: N / 8 tokens of half the KV heads from the left neighbour
// only, S * H_kv * dh / 4 bytes in bf16.
TEST(CpExchange, AnEighthOfTheRowOfHalfTheHeadsFromTheLeftNeighbour) {
  constexpr int64_t kTokens = 512, kHeadDim = 16;
  for (const int ranks : {2, 4, 8}) {
    for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{8, 8}, {8, 2}, {4, 4}}) {
      const std::vector<CpTransfer> transfers =
          RowShape{kTokens, kTokens / 4, heads, kv_heads, true, {}, ranks}.Exchange();
      ASSERT_EQ(transfers.size(), static_cast<size_t>(ranks - 1));
      for (const CpTransfer& t : transfers) {
        EXPECT_EQ(t.from, t.to - 1);
        EXPECT_EQ(t.tokens.end - t.tokens.begin, kTokens / 8);
        EXPECT_EQ(t.kv_end - t.kv_begin, kv_heads / 2);
        EXPECT_EQ(2 * t.Elements(kHeadDim), kTokens * kv_heads * kHeadDim / 4);
      }
    }
  }
}

TEST(CpExchange, OneKvHeadIsSentWhole) {
  const RowShape row{512, 128, 4, 1, true, {}, 4};
  for (const CpTransfer& t : row.Exchange()) {
    EXPECT_EQ(t.tokens.end - t.tokens.begin, 64);
    EXPECT_EQ(t.kv_end - t.kv_begin, 1);
  }
}

TEST(CpExchange, FullAttentionNeedsEverythingBefore) {
  const RowShape row{12, 0, 2, 2, false, {}, 3};
  EXPECT_THAT(row.Exchange(),
              ElementsAre(CpTransfer{0, 1, {0, 4}, 0, 2}, CpTransfer{0, 2, {0, 4}, 0, 2},
                          CpTransfer{1, 2, {4, 8}, 0, 2}));
}

TEST(CpShard, FewerTokensThanRanks) {
  EXPECT_EQ(CpShard(2, 4, 0), (Segment{0, 0}));
  EXPECT_EQ(CpShard(2, 4, 1), (Segment{0, 1}));
  EXPECT_EQ(CpShard(2, 4, 3), (Segment{1, 2}));
}

}  // namespace
}  // namespace ll
