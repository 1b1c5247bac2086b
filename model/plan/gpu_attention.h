// What LibTorch's attention kernels take on a GPU beside their inputs. Without torch.
#pragma once

#include <cstdint>

namespace ll {

// A backward call of FlashAttention-2's size.
struct GpuAttentionShape {
  int64_t batch = 1, heads = 1, kv_heads = 1;
  int64_t queries = 0, keys = 0, head_dim = 128;
  bool deterministic = false;
};

// Bytes that a backward call allocates beside its inputs: the sum of dq in fp32 (as many as the
// streaming multiprocessors need where the order of the sum is fixed), the three gradients, dk and
// dv of every query head where heads are grouped, dense copies of the output and its gradient, and
// the products' row sums. Counted in LibTorch 2.11's sources; not measured on a GPU.
int64_t GpuAttentionScratchBytes(const GpuAttentionShape& shape);

// How many query heads to compute at once, whole groups of them: all that stay within
// kGpuAttentionScratch, and one group at least. Heads are independent, so that bits do not depend
// on it.
int64_t GpuAttentionHeads(const GpuAttentionShape& shape);
inline constexpr int64_t kGpuAttentionScratch = int64_t{2} << 30;  // bytes

}  // namespace ll
