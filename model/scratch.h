// Buffers that every projection of a thread uses in turn: fresh ones for each use would cost more
// in page faults than some of the products they hold.
#pragma once

#include <ATen/ATen.h>

namespace ll {

// The first two are one buffer for each Projection::Place.
enum class ScratchUse {
  kWeight,
  kTransposed = kWeight + 4,
  kInput = kTransposed + 4,
  kDown,
  kDownGradient,
  kCodes,
  kScales,
  kRounded,
  kProduct,
  kCount
};

// Undefined content of this shape, until the next call with the same use in this thread.
at::Tensor Scratch(ScratchUse use, at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace ll
