#include "worker/trainer/comm/comm_cuda.h"

#include "base/status_macros.h"
#include "kernels/common/cuda_library.h"

namespace ll {

absl::StatusOr<std::unique_ptr<Comm>> MakeNcclComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options, int device_index) {
  LL_ASSIGN_OR_RETURN(void* make, CudaSymbol(kMakeNcclCommSymbol));
  return reinterpret_cast<MakeNcclCommFunction>(make)(std::move(store), options, device_index);
}

}  // namespace ll
