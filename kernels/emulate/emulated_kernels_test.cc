// Puts the emulated kernels in the GPU's place for all tests of this program, and checks what only
// they can show: the same bits in every order of threads, and against the CPU's kernels on odd
// shapes.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "gtest/gtest.h"
#include "kernels/emulate/cuda_emulation.h"
#include "kernels/emulate/emulated_kernels.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

class Environment : public testing::Environment {
 public:
  void SetUp() override {
    const char* text = std::getenv("LL_EMULATE_ORDER");
    const std::string order = text == nullptr ? "forward" : text;
    ASSERT_TRUE(order == "forward" || order == "reverse" || order == "shuffled") << order;
    order_ = order == "forward"   ? emulate::Order::kForward
             : order == "reverse" ? emulate::Order::kReverse
                                  : emulate::Order::kShuffled;
    emulate::SetOrder(order_, kSeed);
    std::printf("order %s, seed %d\n", order.c_str(), kSeed);
    UseCudaKernels(&EmulatedKernels());
  }
  static constexpr int kSeed = 7;

 private:
  emulate::Order order_ = emulate::Order::kForward;
};
const auto* const environment = testing::AddGlobalTestEnvironment(new Environment);

// Every operation on one odd and one vector shape; returns all that was written.
std::vector<at::Tensor> RunAll(at::ScalarType dtype, int64_t rows, int64_t width) {
  const auto random = [&](at::IntArrayRef shape, uint64_t seed) {
    return Random(shape, dtype, seed);
  };
  std::vector<at::Tensor> out;
  const at::Tensor x = random({rows, width}, 1), dy = random({rows, width}, 2);
  const at::Tensor w = Random({width}, at::kFloat, 3);
  at::Tensor y = at::empty_like(x), rstd = at::empty({rows}, at::kFloat), dx = dy.clone(),
             dw = at::zeros({width}, at::kFloat);
  RmsNormForward(x, w, 1e-5, y, rstd);
  RmsNormBackward(dy, x, w, rstd, dx, dw);
  out.insert(out.end(), {y, rstd, dx, dw});

  at::Tensor rotated = random({rows, 3 * width}, 4);
  const int64_t half = width / 2;
  RopeInPlace(rotated, 3, Random({rows, half}, at::kFloat, 5), Random({rows, half}, at::kFloat, 6),
              false);
  at::Tensor gate_up = random({rows, 2 * width}, 7), swiglu = at::empty_like(x);
  SwigluForward(gate_up, swiglu);
  SwigluBackward(gate_up, dy);
  out.insert(out.end(), {rotated, gate_up, swiglu});

  at::Tensor logits = random({rows, width}, 8), nll = at::empty({rows}, at::kFloat);
  at::manual_seed(9);
  at::Tensor labels = at::randint(0, width, {rows}, at::kLong);
  labels[0] = -100;
  CrossEntropyInPlace(logits, labels, 0.25, true, nll);
  at::Tensor grad = at::zeros({width, width}, at::kFloat);
  EmbeddingBackward(x, labels.clamp_min(0), grad);
  at::Tensor dropped = at::empty_like(x), sum = Random({rows, width}, at::kFloat, 10);
  Dropout(x, 0.3, 1234567, 5, dropped);
  AccumulateInto(sum, x, 0.5);
  out.insert(out.end(), {logits, nll, grad, dropped, sum});
  at::Tensor merged = Random({rows, 2, width}, at::kFloat, 13),
             lse = Random({2, rows}, at::kFloat, 14);
  MergeAttention(merged, lse, Random({rows, 2, width}, at::kFloat, 15),
                 Random({2, rows}, at::kFloat, 16));
  out.insert(out.end(), {merged, lse});
  Fp8Rows fp8{at::empty({rows, width}, at::kFloat8_e4m3fn), at::empty({rows}, at::kFloat)};
  at::Tensor rounded = at::empty({rows, width}, at::kBFloat16);
  QuantizeFp8(x.to(at::kBFloat16), {}, fp8);
  DequantizeFp8(fp8, {}, rounded);
  out.insert(out.end(), {fp8.scales, rounded});

  at::Tensor master = Random({rows, width}, at::kFloat, 11), m = at::zeros_like(master),
             v = at::zeros_like(master), compute = master.to(at::kBFloat16);
  AdamWSettings settings;
  settings.lr = 1e-2;
  AdamWStep(settings, master, m, v, sum, compute);
  out.insert(out.end(), {master, m, v, compute, at::tensor(SumSquares(sum), at::kDouble)});
  return out;
}

TEST(EmulatedKernels, SameBitsInEveryOrder) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [rows, width] : {std::pair{3, 18}, {33, 64}, {2, 2048}}) {
      emulate::SetOrder(emulate::Order::kForward);
      const std::vector<at::Tensor> expected = RunAll(dtype, rows, width);
      for (const auto order : {emulate::Order::kReverse, emulate::Order::kShuffled}) {
        emulate::SetOrder(order, 42);
        const std::vector<at::Tensor> got = RunAll(dtype, rows, width);
        for (size_t i = 0; i < got.size(); ++i)
          EXPECT_TRUE(at::equal(got[i], expected[i])) << "output " << i << " width " << width;
      }
    }
  }
  emulate::SetOrder(emulate::Order::kForward);
}

TEST(EmulatedKernels, AgreeWithTheCpus) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [rows, width] :
         {std::pair{1, 2}, {2, 10}, {5, 1026}, {260, 16}, {3, 1040}, {2, 4096}}) {
      SCOPED_TRACE(testing::Message() << dtype << " " << rows << " x " << width);
      const std::vector<at::Tensor> got = RunAll(dtype, rows, width);
      UseCudaKernels(nullptr);
      const std::vector<at::Tensor> expected = RunAll(dtype, rows, width);
      UseCudaKernels(&EmulatedKernels());
      for (size_t i = 0; i < got.size(); ++i) {
        SCOPED_TRACE(testing::Message() << "output " << i);
        ExpectClose(got[i], expected[i], 2);
      }
    }
  }
}

TEST(EmulatedKernels, DropoutMasksAreTheCpusBits) {
  for (const int64_t width : {1, 15, 127, 128, 129, 5000}) {
    const at::Tensor x = at::ones({3, width}, at::kBFloat16);
    at::Tensor got = at::empty_like(x), expected = at::empty_like(x);
    Dropout(x, 0.5, 99, 3, got);
    UseCudaKernels(nullptr);
    Dropout(x, 0.5, 99, 3, expected);
    UseCudaKernels(&EmulatedKernels());
    EXPECT_TRUE(at::equal(got, expected)) << width;
  }
}

TEST(EmulatedKernels, Nf4BytesAreTheCpus) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor w = Random({37, 192}, dtype, 12);
    const Nf4Tensor got = QuantizeNf4(w);
    at::Tensor wide = at::empty_like(w), expected_wide = at::empty_like(w);
    DequantizeNf4(got, wide);
    UseCudaKernels(nullptr);
    const Nf4Tensor expected = QuantizeNf4(w);
    DequantizeNf4(expected, expected_wide);
    UseCudaKernels(&EmulatedKernels());
    EXPECT_TRUE(at::equal(got.codes, expected.codes));
    EXPECT_TRUE(at::equal(got.absmax, expected.absmax));
    EXPECT_TRUE(at::equal(wide, expected_wide));
  }
}

// Codes, scales, values and the transposed codes; rows that a block keeps in registers, and longer
// ones, read 16 bytes at a time and element by element.
TEST(EmulatedKernels, Fp8BytesAreTheCpus) {
  const auto run = [](int64_t rows, int64_t width) {
    const at::Tensor wide = Random({rows, width + 8}, at::kBFloat16, 17, 20);
    const at::Tensor x = wide.narrow(1, 0, width);
    at::manual_seed(18);
    const at::Tensor factors = at::exp2(at::randint(-9, 3, {width}).to(at::kFloat));
    Fp8Rows q{at::empty({rows, width}, at::kFloat8_e4m3fn), at::empty({rows}, at::kFloat)};
    QuantizeFp8(x, factors, q);
    at::Tensor values = at::empty({rows, width}, at::kBFloat16);
    DequantizeFp8(q, factors, values);
    at::Tensor transposed = at::empty({width, rows}, at::kByte);
    TransposeFp8(q.codes.view(at::kByte), transposed);
    return std::vector<at::Tensor>{q.codes.view(at::kByte), q.scales, values, transposed};
  };
  for (const auto& [rows, width] :
       {std::pair{0, 8}, {1, 1}, {3, 70}, {64, 64}, {48, 2064}, {2, 8192}, {2, 16400}, {1, 9001}}) {
    const auto got = run(rows, width);
    UseCudaKernels(nullptr);
    const auto expected = run(rows, width);
    UseCudaKernels(&EmulatedKernels());
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_TRUE(at::equal(got[i], expected[i]))
          << "output " << i << " " << rows << " x " << width;
  }
}

}  // namespace
}  // namespace ll
