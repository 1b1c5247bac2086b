// Sums and values of which each rank has its own part: reduce-scatter and all-gather, made of
// messages from rank to rank, so that Gloo (which has no reduce-scatter of uneven parts) and NCCL
// run the same code, and a sum's order is known: rank 0, 1, 2, … in fp32, whatever the transport
// and however a buffer is cut. Both send (W - 1) / W of the buffer where the parts are equal, as a
// ring does, in one turn instead of W - 1.
//
// One operation of a Comm is in flight at a time; between Start and Finish the ranks compute.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

// Of rank r: elements [first, second) of a flat buffer; together they cover it, none twice. Equal
// on all ranks.
using RankParts = std::vector<std::pair<int64_t, int64_t>>;

class ReduceScatter {
 public:
  // `values`: flat, contiguous, fp32, of one size on all ranks; left as it is, and not to be
  // written before Finish.
  absl::Status Start(Comm& comm, at::Tensor values, const RankParts& parts);
  // The sum over the ranks of this rank's part.
  absl::StatusOr<at::Tensor> Finish();

 private:
  Comm* comm_ = nullptr;
  at::Tensor mine_;
  std::vector<at::Tensor> received_;  // by rank; undefined for this one
};

class AllGather {
 public:
  // `values`: flat and contiguous, of any type, this rank's part filled in; the others' are
  // overwritten.
  absl::Status Start(Comm& comm, at::Tensor values, const RankParts& parts);
  absl::Status Finish();

 private:
  Comm* comm_ = nullptr;
};

}  // namespace ll
