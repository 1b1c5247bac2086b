// Element types of the kernels, without torch.
#pragma once

#include <cstdint>

namespace ll {

enum class DType { kFloat32, kBFloat16 };

// A bfloat16 as it lies in memory: the upper half of an IEEE float.
struct BFloat16 {
  uint16_t bits;
};

}  // namespace ll
