#include "model/torch_edge.h"

#include <new>
#include <string>

#include <c10/util/Exception.h>

#include "base/status_matchers.h"

namespace ll {
namespace {

absl::Status Thrown(const std::string& what) {
  return TorchTry([&]() -> absl::Status {
    TORCH_CHECK(false, what);
    return absl::OkStatus();
  });
}

// What torch 2.11, cuBLAS and NCCL write.
TEST(TorchTry, LackOfMemoryIsOneClassWhoeverLacksIt) {
  for (const char* what : {
           "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in NVIDIA's pages",
           "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
           "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error\nLast error:\n"
           "Cuda failure 2 'out of memory'",
           "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory",
       }) {
    EXPECT_THAT(Thrown(what), StatusIs(absl::StatusCode::kResourceExhausted, "out of memory"))
        << what;
  }
  EXPECT_TRUE(
      absl::IsResourceExhausted(TorchTry([]() -> absl::Status { throw std::bad_alloc(); })));
  EXPECT_TRUE(absl::IsResourceExhausted(TorchTry([]() -> absl::Status {
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate 2.00 GiB.");
    return absl::OkStatus();
  })));
}

TEST(TorchTry, ALostDeviceIsAnErrorOfOneLine) {
  for (const char* what :
       {"CUDA error: uncorrectable ECC error encountered", "CUDA error: unspecified launch failure",
        "CUDA error: an illegal memory access was encountered"}) {
    const absl::Status lost = TorchTry([&]() -> absl::Status {
      throw c10::AcceleratorError({__func__, __FILE__, __LINE__}, 214,
                                  std::string(what) + "\nCompile with `TORCH_USE_CUDA_DSA`");
    });
    EXPECT_EQ(lost, absl::InternalError(std::string("torch: ") + what));
  }
}

}  // namespace
}  // namespace ll
