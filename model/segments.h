// Where S²-Attn's groups begin and end, without torch.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace ll {

// Boundaries b0 = 0 < b1 < … < bn = length of the groups of `group` tokens: attention is causal
// inside [b_i, b_i+1). Shifted: the first group has only floor(group / 2) tokens, so the others
// straddle the unshifted boundaries. The tail is one more, shorter group. length >= 1, group >= 1.
//   SegmentBoundaries(16, 4, false) = 0 4 8 12 16      SegmentBoundaries(16, 4, true) = 0 2 6 10 14
//   16
std::vector<int64_t> SegmentBoundaries(int64_t length, int64_t group, bool shifted);

struct Segment {
  int64_t begin = 0;
  int64_t end = 0;
  bool operator==(const Segment&) const = default;
};

// The segments of a row of documents [start, end): the group grid restarts at each document. group
// 0 = no groups, each document is one segment. No documents = the whole row is one.
std::vector<Segment> RowSegments(int64_t tokens,
                                 const std::vector<std::pair<int64_t, int64_t>>& documents,
                                 int64_t group, bool shifted);

// [0, length) in as few pieces of at most `most` tokens as suffice, as equal as multiples of 64 are
// (where `most` allows such). length >= 1, most >= 1.
std::vector<Segment> EqualTiles(int64_t length, int64_t most);

// What of the runs, laid one behind the other, is in [part.begin, part.end).
std::vector<Segment> PartOf(const std::vector<Segment>& runs, const Segment& part);

// Segments of one length whose starts are evenly spaced: one strided batch for a dense attention
// call.
struct SegmentBatch {
  int64_t begin = 0;   // start of the first segment
  int64_t stride = 0;  // from one start to the next, in tokens
  int64_t count = 0;
  int64_t length = 0;
  bool operator==(const SegmentBatch&) const = default;
};

// Packs segments into few batches. S² on a row of 8k tokens with ratio 1/4 gives three in all: the
// four unshifted groups; the three whole shifted ones; and the first and last half groups.
std::vector<SegmentBatch> BatchSegments(const std::vector<Segment>& segments);

}  // namespace ll
