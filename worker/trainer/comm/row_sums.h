// The sum over the ranks of a matrix most of whose rows are zero: an embedding's gradient, of which
// only the rows whose tokens occurred in the step are exchanged.
#pragma once

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/comm/sharded_sums.h"

namespace ll {

// The sum of this rank's part of `values`, fp32 [rows, width], flat, as ReduceScatter makes it, bit
// for bit; `parts` are in elements. Rows outside of `candidates`, bool [rows] (this rank's), are
// zero. With `everywhere` all ranks' `values` become the whole sum too. Sent to another rank: a
// byte a row of the matrix, and the rows of its part that are not zero here. Collective.
absl::StatusOr<at::Tensor> SumTouchedRows(Comm& comm, at::Tensor values,
                                          const at::Tensor& candidates, const RankParts& parts,
                                          bool everywhere);

}  // namespace ll
