// The CPU's kernels, and the GPU's emulated on the host, held to what holds on a GPU; and that the
// judgement can fail.
#include "tests/gpu/kernels_check.h"

#include "gtest/gtest.h"
#include "kernels/common/cuda_kernels.h"
#include "kernels/emulate/emulated_kernels.h"

namespace ll::gpu {
namespace {

void ExpectAllOk(bool small) {
  int lines = 0;
  EXPECT_TRUE(CheckKernels(at::kCPU, small, [&](const nlohmann::ordered_json& line) {
    ++lines;
    EXPECT_EQ(line["status"], "ok") << line.dump();
  }));
  EXPECT_GT(lines, 130);
}

TEST(KernelsCheck, TheCpusKernels) { ExpectAllOk(/*small=*/false); }

TEST(KernelsCheck, TheGpusKernelsEmulated) {
  UseCudaKernels(&EmulatedKernels());
  ExpectAllOk(/*small=*/true);
  UseCudaKernels(nullptr);
}

// Every operation is spoiled in each of its outputs, in every way that a kernel can be wrong.
TEST(KernelsCheck, WhatIsWrongIsSeen) {
  const std::vector<std::function<void(at::Tensor&)>> faults = {
      [](at::Tensor& t) { t = t * 1.03; },                     // more than bf16's rounding
      [](at::Tensor& t) { t.view(-1)[t.numel() - 1] = NAN; },  // the tail was not written
      [](at::Tensor& t) { t = t.flatten().narrow(0, 0, 1); },  // another shape
  };
  for (const Operation& right : Operations()) {
    const auto type = right.fp32_only ? at::kFloat : at::kBFloat16;
    const size_t outputs = right.plain(right.inputs(type, {9, 256}, at::kCPU)).size();
    for (size_t i = 0; i < outputs; ++i) {
      for (size_t f = 0; f < faults.size(); ++f) {
        Operation wrong = right;
        wrong.prepare = [&, i, f](const Tensors& in) {
          const auto run = right.prepare(in);
          return [&, run, i, f] {
            Tensors out = run();
            if (out[i].dim() > 0 || f < 1) faults[f](out[i]);
            return out;
          };
        };
        if (right.name == "sum_squares" && f > 0) continue;  // one number
        EXPECT_EQ(JudgeKernel(wrong, type, {9, 256}, at::kCPU)["status"], "wrong")
            << right.name << ", output " << i << ", fault " << f;
      }
    }
  }
}

TEST(KernelsCheck, AWriteBesideTheOutputIsSeen) {
  Operation wrong = Operations()[0];
  wrong.prepare = [](const Tensors& in) {
    return [run = Operations()[0].prepare(in)] {
      Tensors out = run();
      out[0].as_strided({1}, {1}, out[0].storage_offset() + out[0].numel()).zero_();
      return out;
    };
  };
  const auto line = JudgeKernel(wrong, at::kBFloat16, {9, 256}, at::kCPU);
  EXPECT_EQ(line["status"], "wrong");
  EXPECT_EQ(line["message"], "wrote outside of its output");
}

}  // namespace
}  // namespace ll::gpu
