// Which rank updates which elements of the trained parameters, and in which pieces gradients are
// summed over the ranks (ZeRO: Rajbhandari et al. 2020). Pure functions of shapes and numbers of
// ranks; torch-free.
//
// Parameters are taken from the last to the first, the order in which a backward pass ends with
// their gradients, and packed into buckets. Each bucket is divided over all ranks, so that all of
// them send and receive while one bucket is under way. Cuts fall on blocks of kBlockElements from a
// parameter's beginning: what the kernels' vectors and the norm's partial sums are made of, so that
// neither sees where a cut is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace ll {

// Elements [begin, end) of a parameter, flat.
struct Piece {
  size_t parameter = 0;
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

struct Bucket {
  std::vector<Piece> pieces;  // one behind the other they are the bucket's elements
  int64_t elements = 0;
  std::vector<std::pair<int64_t, int64_t>> parts;  // of rank r, of those elements
  // An embedding whose rows have no gradient but where their token occurred; one whole parameter.
  bool by_rows = false;
};

struct ParameterShape {
  int64_t elements = 0;
  bool by_rows = false;
};

struct BucketSizes {
  int64_t block = 65536;       // = kSumSquaresBlock
  int64_t alone = 1 << 20;     // a parameter this large shares its bucket with no other
  int64_t elements = 4 << 20;  // of a bucket, about
};

std::vector<Bucket> MakeBuckets(const std::vector<ParameterShape>& parameters, int world_size,
                                const BucketSizes& sizes = {});

// A rank's part of a bucket.
std::vector<Piece> PiecesOf(const Bucket& bucket, int rank);

}  // namespace ll
