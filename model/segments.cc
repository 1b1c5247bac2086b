#include "model/segments.h"

#include <algorithm>
#include <map>

#include "base/check.h"

namespace ll {

std::vector<int64_t> SegmentBoundaries(int64_t length, int64_t group, bool shifted) {
  LL_CHECK(length >= 1 && group >= 1);
  std::vector<int64_t> bounds = {0};
  // group 1 has no half: its shifted grid is the unshifted one.
  int64_t next = shifted && group > 1 ? group / 2 : group;
  for (; next < length; next += group) bounds.push_back(next);
  bounds.push_back(length);
  return bounds;
}

std::vector<Segment> RowSegments(int64_t tokens,
                                 const std::vector<std::pair<int64_t, int64_t>>& documents,
                                 int64_t group, bool shifted) {
  std::vector<std::pair<int64_t, int64_t>> whole = {{0, tokens}};
  std::vector<Segment> segments;
  for (const auto& [start, end] : documents.empty() ? whole : documents) {
    if (end == start) continue;
    const std::vector<int64_t> bounds =
        SegmentBoundaries(end - start, group > 0 ? group : end - start, group > 0 && shifted);
    for (size_t i = 0; i + 1 < bounds.size(); ++i)
      segments.push_back({start + bounds[i], start + bounds[i + 1]});
  }
  return segments;
}

std::vector<Segment> EqualTiles(int64_t length, int64_t most) {
  const int64_t count = (length + most - 1) / most;
  int64_t size = (length + count - 1) / count;
  if (const int64_t rounded = (size + 63) / 64 * 64; rounded <= most) size = rounded;
  std::vector<Segment> tiles;
  for (int64_t begin = 0; begin < length; begin += size)
    tiles.push_back({begin, std::min(begin + size, length)});
  return tiles;
}

std::vector<Segment> PartOf(const std::vector<Segment>& runs, const Segment& part) {
  std::vector<Segment> out;
  int64_t at = 0;  // where the run begins in the row of runs
  for (const Segment& run : runs) {
    const int64_t begin = std::max(part.begin - at, int64_t{0}) + run.begin,
                  end = std::min(part.end - at + run.begin, run.end);
    if (begin < end) out.push_back({begin, end});
    at += run.end - run.begin;
  }
  return out;
}

std::vector<SegmentBatch> BatchSegments(const std::vector<Segment>& segments) {
  std::map<int64_t, std::vector<int64_t>> starts_by_length;
  for (const Segment& s : segments) starts_by_length[s.end - s.begin].push_back(s.begin);
  std::vector<SegmentBatch> batches;
  for (const auto& [length, starts] : starts_by_length) {
    SegmentBatch* open = nullptr;
    for (int64_t start : starts) {
      if (open != nullptr && open->count == 1) open->stride = start - open->begin;
      if (open != nullptr && start == open->begin + open->stride * open->count) {
        ++open->count;
        continue;
      }
      batches.push_back({start, 0, 1, length});
      open = &batches.back();
    }
  }
  return batches;
}

}  // namespace ll
