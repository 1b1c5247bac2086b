#include "model/cp_exchange.h"

#include <algorithm>

#include "base/check.h"

namespace ll {
namespace {

// From which token on each KV head is needed in front of `shard`; shard.begin where nothing is.
std::vector<int64_t> FirstNeeded(const Segment& shard, const std::vector<Segment> segments[2],
                                 const std::vector<HeadRun>& runs) {
  std::vector<int64_t> first;
  for (const HeadRun& run : runs) {
    const CpSegments mine = ShardSegments(segments[run.shifted], shard);
    const int64_t begin = mine.reaching ? mine.reaching->begin : shard.begin;
    first.resize(static_cast<size_t>(run.kv_end), shard.begin);
    for (int64_t kv = run.kv_begin; kv < run.kv_end; ++kv) first[kv] = std::min(first[kv], begin);
  }
  return first;
}

}  // namespace

Segment CpShard(int64_t tokens, int ranks, int rank) {
  LL_CHECK(tokens >= 0 && 0 <= rank && rank < ranks);
  return {tokens * rank / ranks, tokens * (rank + 1) / ranks};
}

CpSegments ShardSegments(const std::vector<Segment>& segments, const Segment& shard) {
  CpSegments mine;
  if (shard.begin == shard.end) return mine;
  for (const Segment& s : segments) {
    if (s.end <= shard.begin || s.begin >= shard.end) continue;
    const Segment cut{s.begin, std::min(s.end, shard.end)};
    if (s.begin < shard.begin) {
      mine.reaching = cut;
    } else {
      mine.local.push_back(cut);
    }
  }
  return mine;
}

std::vector<CpTransfer> CpExchange(int64_t tokens, const std::vector<Segment> segments[2],
                                   const std::vector<HeadRun>& runs, int ranks) {
  std::vector<CpTransfer> transfers;
  for (int to = 0; to < ranks; ++to) {
    const Segment shard = CpShard(tokens, ranks, to);
    const std::vector<int64_t> first = FirstNeeded(shard, segments, runs);
    const int64_t kv_heads = static_cast<int64_t>(first.size());
    for (int64_t kv = 0, next = 0; kv < kv_heads; kv = next) {
      next = kv + 1;
      while (next < kv_heads && first[next] == first[kv]) ++next;
      for (int from = 0; from < to; ++from) {
        const Segment theirs = CpShard(tokens, ranks, from);
        const Segment part{std::max(theirs.begin, first[kv]), theirs.end};
        if (part.begin < part.end) transfers.push_back({from, to, part, kv, next});
      }
    }
  }
  return transfers;
}

}  // namespace ll
