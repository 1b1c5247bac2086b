// Dropout whose mask is a function of (key, stream, row, column) alone: y = x where kept, else 0.
// What is kept is not divided by 1 - p here: a caller multiplies a small product by DropoutScale(p)
// instead of every element, and bf16 values stay exact. The backward pass applies the same function
// to dy, so no mask is stored and a mask does not depend on threads, ranks or the order of calls.
// The mask is Philox-4x32-10 (Salmon et al. 2011), eight columns a counter: 16 random bits decide
// on an element, so p is rounded to 1/65536.
#pragma once

#include "kernels/common/dispatch.h"
#include "kernels/common/dtype.h"

namespace ll {

// x, y [rows, width] contiguous, may be the same. Items are rows.
//
// Column c of a row belongs to vector v = c % 128 / 16 and lane l = c % 16 of block b = c / 128;
// its bits are half v % 2 (0 = low) of word v / 2 of the counter (16 b + l, row, stream).
struct DropoutParams {
  const void* x;
  void* y;
  int64_t width;
  int64_t first_row;  // number of the first row, for the mask
  uint64_t key;
  uint32_t stream;
  uint32_t threshold;  // of 65536: elements with less are dropped
  DType dtype;
};
LL_SIMD_KERNEL(Dropout, DropoutParams)
LL_CUDA_KERNEL(Dropout, DropoutParams)

}  // namespace ll
