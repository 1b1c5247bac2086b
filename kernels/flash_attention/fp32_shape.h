// Sizes that the fp32 passes share, outside of their kernel sources too.
#pragma once

#include <cstdint>

namespace ll {

constexpr int64_t kFp32Strip = 32;  // queries that go through the keys together
constexpr int64_t kFp32KeyBlock = 128;

// The head dims the kernels take.
constexpr bool FlashFp32Takes(int64_t head_dim) {
  return head_dim >= 16 && head_dim <= 256 && head_dim % 16 == 0;
}

}  // namespace ll
