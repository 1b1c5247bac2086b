#include "worker/trainer/device.h"

#include <cstdlib>

#include "base/status_matchers.h"

namespace ll {
namespace {

// Also where no GPU is found: they must be there before CUDA and NCCL look.
TEST(Device, TorchsThreadsLeaveErrorsToTheMainThread) {
  for (const char* name : {"TORCH_NCCL_RETHROW_CUDA_ERRORS", "TORCH_NCCL_DUMP_ON_TIMEOUT"}) {
    unsetenv(name);
    UseDevice("cuda", /*deterministic=*/true).IgnoreError();
    EXPECT_STREQ(getenv(name), "0") << name;
    setenv(name, "1", /*overwrite=*/1);
    UseDevice("cuda", /*deterministic=*/true).IgnoreError();
    EXPECT_STREQ(getenv(name), "1") << name;
  }
  LL_EXPECT_OK(UseDevice("cpu", /*deterministic=*/true));
}

}  // namespace
}  // namespace ll
