#include "worker/trainer/comm/comm_cuda.h"

#include <dlfcn.h>

#include "absl/strings/str_cat.h"

namespace ll {

absl::StatusOr<std::unique_ptr<Comm>> MakeNcclComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options, int device_index) {
  // Found through the program's own run path; stays open until the process ends, as CUDA wants.
  void* library = dlopen("libll_cuda.so", RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("this build cannot use a GPU: ", dlerror()));
  }
  const auto make = reinterpret_cast<MakeNcclCommFunction>(dlsym(library, kMakeNcclCommSymbol));
  if (make == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("libll_cuda.so does not match this ll-trainer: ", dlerror()));
  }
  return make(std::move(store), options, device_index);
}

}  // namespace ll
