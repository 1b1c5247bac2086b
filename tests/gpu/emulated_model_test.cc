// Whole steps of a model through the GPU's kernels, emulated on the host, against the CPU's: where
// the kernels meet the model's layouts, strides and lengths. Attention goes the GPU's way too, with
// LibTorch's kernels computed on the host; matrix products are the CPU's in both.
#include "gtest/gtest.h"
#include "kernels/emulate/emulated_kernels.h"
#include "model/testing_gpu_attention.h"
#include "tests/gpu/model_check.h"

namespace ll::gpu {
namespace {

TEST(EmulatedModel, EveryCaseIsTheCpus) {
  for (const ModelCase& c : ModelCases()) {
    UseCudaKernels(nullptr);
    UseGpuAttention(nullptr);
    const absl::StatusOr<ModelStep> expected = RunModelStep(c, at::kCPU);
    CudaKernels kernels = EmulatedKernels();
    kernels.multiplies_fp8 = [] { return true; };  // as at::_scaled_mm is defined
    UseCudaKernels(&kernels);
    UseGpuAttention(&HostGpuAttention());
    const absl::StatusOr<ModelStep> got = RunModelStep(c, at::kCPU);
    UseGpuAttention(nullptr);
    ASSERT_TRUE(expected.ok()) << c.name << ": " << expected.status();
    ASSERT_TRUE(got.ok()) << c.name << ": " << got.status();
    EXPECT_GT(expected->gradients.size(), 10u);
    UseCudaKernels(nullptr);
    const auto line = CompareSteps(c, *got, *expected);
    EXPECT_EQ(line["status"], "ok") << line.dump();
    std::printf("%s\n", line.dump().c_str());
  }
}

// The comparison must be able to fail.
TEST(EmulatedModel, AnotherStepIsSeen) {
  UseCudaKernels(nullptr);
  const ModelCase& c = ModelCases()[0];
  const absl::StatusOr<ModelStep> step = RunModelStep(c, at::kCPU);
  ASSERT_TRUE(step.ok());
  ModelStep other = *step;
  other.gradients[3].second = other.gradients[3].second * 1.1;
  EXPECT_EQ(CompareSteps(c, other, *step)["status"], "wrong");
  other = *step;
  other.loss *= 1.01;
  EXPECT_EQ(CompareSteps(c, other, *step)["status"], "wrong");
}

}  // namespace
}  // namespace ll::gpu
