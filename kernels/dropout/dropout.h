// Dropout whose mask is a function of (key, stream, row, column) alone: y = x / (1 - p) where kept,
// else 0. The backward pass applies the same function to dy, so no mask is stored and a mask does
// not depend on threads, ranks or the order of calls. The mask is Philox-4x32-10 (Salmon et al.
// 2011), four columns a call.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// x, y [rows, width] contiguous, may be the same. The counter is (column / 4, row, stream). Items
// are rows.
struct DropoutParams {
  const void* x;
  void* y;
  int64_t width;
  uint64_t key;
  uint32_t stream;
  float p;
  DType dtype;
};
LL_SIMD_KERNEL(Dropout, DropoutParams)

}  // namespace ll
