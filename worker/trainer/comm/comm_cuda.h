// The door between ll-trainer, which never links CUDA, and libll_cuda.so, which it opens when it is
// given a GPU.
#pragma once

#include "worker/trainer/comm/comm.h"

namespace ll {

// Type of `ll_make_nccl_comm`, exported by libll_cuda.so.
using MakeNcclCommFunction = absl::StatusOr<std::unique_ptr<Comm>> (*)(
    std::unique_ptr<RendezvousStore> store, const CommOptions& options, int device_index);
inline constexpr char kMakeNcclCommSymbol[] = "ll_make_nccl_comm";

}  // namespace ll
