// What the thin torch files share: dtype mapping, checks, and a division of work that is the same
// for every number of threads where the result depends on it.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "base/check.h"
#include "kernels/common/dtype.h"

namespace ll {

inline DType DTypeOf(const at::Tensor& t) {
  LL_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
  return t.scalar_type() == at::kFloat ? DType::kFloat32 : DType::kBFloat16;
}

// The CPU is the only device these adapters know; a GPU build registers its own.
inline void CheckOperand(const at::Tensor& t) {
  LL_CHECK_MSG(t.device().is_cpu(), "this operation has a CPU kernel only");
  LL_CHECK(t.is_contiguous());
}

// Items a thread takes at least, so that starting a thread costs little beside its work.
inline int64_t Grain(int64_t item_elements) {
  return std::max<int64_t>(1, 32768 / std::max<int64_t>(1, item_elements));
}

}  // namespace ll
