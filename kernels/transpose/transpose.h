// y = x^T of a bf16 matrix.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

constexpr int64_t kTransposeRows = 32;

// x [rows, columns], y [columns, rows], whose rows are `ldx` and `ldy` elements apart; they do not
// overlap. Items are groups of 32 rows of x, the last may have fewer.
struct TransposeParams {
  const BFloat16* x;
  BFloat16* y;
  int64_t rows, columns, ldx, ldy;
};
LL_SIMD_KERNEL(Transpose, TransposeParams)

}  // namespace ll
