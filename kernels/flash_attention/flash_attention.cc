#include "kernels/flash_attention/flash_attention.h"

#include "base/check.h"
#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention_amx.h"

namespace ll {
namespace {

bool CpuRunsKernels() {
#if defined(__x86_64__)
  return FlashAttentionAmxBuilt() && CpuHasAmx() && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace

bool FlashAttentionSupported(int64_t head_dim) {
  static const bool runs = CpuRunsKernels();
  return runs && head_dim >= 16 && head_dim <= 128 && head_dim % 16 == 0;
}

int64_t FlashAttentionForwardTasks(const FlashAttentionShape& shape) {
  LL_CHECK(FlashAttentionSupported(shape.head_dim));
  return shape.batch * shape.kv_heads *
         ((shape.q_tokens + kForwardTaskQueries - 1) / kForwardTaskQueries);
}

size_t FlashAttentionForwardScratchBytes(const FlashAttentionShape& shape) {
  return FlashForwardAmxScratchBytes(shape);
}

int64_t FlashAttentionBackwardTasks(const FlashAttentionShape& shape) {
  LL_CHECK(FlashAttentionSupported(shape.head_dim));
  return shape.batch * shape.kv_heads;
}

size_t FlashAttentionBackwardScratchBytes(const FlashAttentionShape& shape) {
  return FlashBackwardAmxScratchBytes(shape);
}

void FlashAttentionForwardTask(const FlashAttentionForwardParams& params, int64_t task,
                               void* scratch) {
  FlashForwardAmx(params, task, scratch);
}

void FlashAttentionBackwardTask(const FlashAttentionBackwardParams& params, int64_t task,
                                void* scratch) {
  FlashBackwardAmx(params, task, scratch);
}

}  // namespace ll
