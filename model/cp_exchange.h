// Who needs whose keys and values when the tokens of a row are divided between ranks (context
// parallelism), without torch.
//
// Rank r of n holds tokens [N r / n, N (r + 1) / n). Of a segment that begins before its shard and
// reaches into it, the rank needs the keys and values in front of its shard; the segments that
// begin inside need nothing. Segments are consecutive, so at most one of each grid reaches in, and
// what a KV head needs is one range of tokens that ends where the shard begins. S²-Attn at ratio
// 1/4 with an even number of KV heads and n = 2, 4 or 8: N / 8 tokens of half the KV heads from the
// left neighbour.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "model/head_runs.h"
#include "model/segments.h"

namespace ll {

// Rank `rank`'s tokens; empty where the row has fewer tokens than ranks.
Segment CpShard(int64_t tokens, int ranks, int rank);

// Keys and values of tokens x KV heads [kv_begin, kv_end), from one rank to another.
struct CpTransfer {
  int from = 0, to = 0;
  Segment tokens;  // of the row
  int64_t kv_begin = 0, kv_end = 0;
  // Elements of K and V together.
  int64_t Elements(int64_t head_dim) const {
    return 2 * (tokens.end - tokens.begin) * (kv_end - kv_begin) * head_dim;
  }
  bool operator==(const CpTransfer&) const = default;
};

// What a rank's queries attend to in one grid of segments, in tokens of the row.
struct CpSegments {
  std::vector<Segment> local;  // begin in the shard, cut at its end
  // The segment that reaches in, cut at the shard's end: the queries are its tokens in the shard,
  // the keys are all of it.
  std::optional<Segment> reaching;
};
// `segments`: consecutive, in order, covering the row.
CpSegments ShardSegments(const std::vector<Segment>& segments, const Segment& shard);

// Every transfer of a row: by receiver, KV head, then tokens. `segments`: [shifted], as
// AttentionPlan has them. Every rank computes the same list.
std::vector<CpTransfer> CpExchange(int64_t tokens, const std::vector<Segment> segments[2],
                                   const std::vector<HeadRun>& runs, int ranks);

}  // namespace ll
