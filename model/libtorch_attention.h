// LibTorch's attention entry points for GPUs, as attention_cuda.cc calls them.
#pragma once

#include "model/attention_cuda.h"

namespace ll {

const GpuAttention& LibTorchAttention();

}  // namespace ll
