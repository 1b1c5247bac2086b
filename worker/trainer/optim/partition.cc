#include "worker/trainer/optim/partition.h"

#include <algorithm>

namespace ll {
namespace {

// Cuts a bucket at blocks, as evenly as they allow. Rank (r + turn) mod W has the r-th part, so
// that it is not always the same ranks that have the block more.
void Divide(Bucket& bucket, int world_size, size_t turn, int64_t block) {
  std::vector<int64_t> cuts(static_cast<size_t>(world_size) + 1, bucket.elements);
  cuts[0] = 0;
  size_t next = 1;  // the cut to be made
  int64_t offset = 0;
  for (const Piece& piece : bucket.pieces) {
    for (int64_t begin = piece.begin; begin < piece.end; begin += block) {
      // A block goes to the part in which it begins.
      while (next < cuts.size() - 1 &&
             offset * world_size >= static_cast<int64_t>(next) * bucket.elements)
        cuts[next++] = offset;
      offset += std::min(block, piece.end - begin);
    }
  }
  bucket.parts.resize(static_cast<size_t>(world_size));
  for (size_t r = 0; r < bucket.parts.size(); ++r)
    bucket.parts[(r + turn) % bucket.parts.size()] = {cuts[r], cuts[r + 1]};
}

}  // namespace

std::vector<Bucket> MakeBuckets(const std::vector<ParameterShape>& parameters, int world_size,
                                const BucketSizes& sizes) {
  std::vector<Bucket> buckets;
  Bucket open;
  const auto close = [&] {
    if (open.elements == 0) return;
    Divide(open, world_size, buckets.size(), sizes.block);
    buckets.push_back(std::move(open));
    open = {};
  };
  for (size_t i = parameters.size(); i-- > 0;) {
    const auto& [elements, by_rows] = parameters[i];
    const bool alone = by_rows || elements >= sizes.alone;
    if (alone) close();
    const int64_t step = alone && !by_rows ? sizes.elements : elements;
    for (int64_t begin = 0; begin < elements; begin += step) {
      const Piece piece{i, begin, std::min(elements, begin + step)};
      open.pieces.push_back(piece);
      open.elements += piece.size();
      open.by_rows = by_rows;
      if (alone || open.elements >= sizes.elements) close();
    }
  }
  close();
  return buckets;
}

std::vector<Piece> PiecesOf(const Bucket& bucket, int rank) {
  const auto& [first, last] = bucket.parts[static_cast<size_t>(rank)];
  std::vector<Piece> mine;
  int64_t offset = 0;
  for (const Piece& piece : bucket.pieces) {
    const int64_t begin = std::max(first, offset), end = std::min(last, offset + piece.size());
    if (begin < end)
      mine.push_back({piece.parameter, piece.begin + begin - offset, piece.begin + end - offset});
    offset += piece.size();
  }
  return mine;
}

}  // namespace ll
