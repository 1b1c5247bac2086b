// The AMX kernels behind flash_attention.h. Their sources hold code only where the compiler knows
// AMX; elsewhere the functions do nothing and FlashAttentionAmxBuilt() is false.
#pragma once

#include "kernels/flash_attention/flash_attention.h"

namespace ll {

bool FlashAttentionAmxBuilt();
size_t FlashForwardAmxScratchBytes(const FlashAttentionShape& shape);
size_t FlashBackwardAmxScratchBytes(const FlashAttentionShape& shape);
void FlashForwardAmx(const FlashAttentionForwardParams& params, int64_t task, void* scratch);
void FlashBackwardAmx(const FlashAttentionBackwardParams& params, int64_t task, void* scratch);

// Queries that one forward task handles: large enough that packing K and V anew costs little, small
// enough that a single long sequence still divides among threads.
constexpr int64_t kForwardTaskQueries = 512;

}  // namespace ll
