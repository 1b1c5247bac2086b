#include "kernels/nf4/nf4.h"

#include <cmath>
#include <random>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

// The definition, one element at a time.
int NearestCode(float scaled) {
  for (int c = 0; c < 15; ++c) {
    if (scaled <= (kNf4Codes[c] + kNf4Codes[c + 1]) / 2) return c;
  }
  return 15;
}

TEST(Nf4, CodesAreTheNearestOfEachBlockInBothTypes) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor w = Random({96, 64}, dtype, 1);
    const Nf4Tensor q = QuantizeNf4(w);
    const at::Tensor blocks = w.to(at::kFloat).view({-1, kNf4Block});
    const at::Tensor absmax = std::get<0>(blocks.abs().max(1));
    for (int64_t b = 0; b < blocks.size(0); ++b) {
      const float inverse = 1.0f / absmax[b].item<float>();
      for (int64_t i = 0; i < kNf4Block; i += 2) {
        const int high = NearestCode(blocks[b][i].item<float>() * inverse);
        const int low = NearestCode(blocks[b][i + 1].item<float>() * inverse);
        ASSERT_EQ(q.codes[(b * kNf4Block + i) / 2].item<int>(), high << 4 | low) << b << " " << i;
      }
    }
  }
}

// Claim: every code is exact, and no element is off by more than half the widest gap (-1 to
// -0.696), 0.152 of its block's absmax, plus what eight bits of absmax lose.
TEST(Nf4, RoundTrip) {
  const at::Tensor w = Random({64, 1024}, at::kFloat, 2);
  const Nf4Tensor q = QuantizeNf4(w);
  at::Tensor back = at::empty_like(w);
  DequantizeNf4(q, back);
  const at::Tensor blocks = w.view({-1, kNf4Block});
  const at::Tensor absmax = std::get<0>(blocks.abs().max(1, /*keepdim=*/true));
  const at::Tensor error = (back.view_as(blocks) - blocks).abs() / absmax;
  EXPECT_LE(error.max().item<double>(), 0.152 + 0.02);

  at::Tensor codes = at::tensor(at::ArrayRef<float>(kNf4Codes, 16), at::kFloat).repeat({4 * 16});
  const Nf4Tensor exact = QuantizeNf4(codes, /*offset=*/0.0f);  // absmax 1 is a step of the map
  at::Tensor again = at::empty_like(codes);
  DequantizeNf4(exact, again);
  EXPECT_TRUE(at::equal(codes, again));
}

TEST(Nf4, TransposedGivesTheSameValues) {
  const at::Tensor w = Random({96, 192}, at::kBFloat16, 5);
  const Nf4Tensor q = QuantizeNf4(w);
  at::Tensor plain = at::empty_like(w), wide = at::full({192, 160}, 7, at::kBFloat16);
  at::Tensor want = wide.clone(), part = wide.narrow(1, 32, 96);
  DequantizeNf4(q, plain);
  DequantizeNf4Transposed(q, part);
  want.narrow(1, 32, 96).copy_(plain.t());
  EXPECT_TRUE(at::equal(wide, want));
}

TEST(Nf4, Takes4Point13BitsAWeight) {
  const at::Tensor w = Random({512, 1024}, at::kBFloat16, 3);
  const Nf4Tensor q = QuantizeNf4(w);
  const double bytes = q.codes.numel() + q.absmax.numel() + 4.0 * q.nested_absmax.numel() + 4;
  EXPECT_LE(bytes * 8 / w.numel(), 4.13);
}

TEST(Nf4, ZerosAndPartialNestedBlocks) {
  at::Tensor w = at::zeros({3, kNf4Block}, at::kFloat);
  Nf4Tensor q = QuantizeNf4(w);
  at::Tensor back = at::ones_like(w);
  DequantizeNf4(q, back);
  EXPECT_EQ(back.abs().max().item<float>(), 0);
  w = Random({kNf4NestedBlock + 5, kNf4Block}, at::kFloat, 4);
  q = QuantizeNf4(w);
  EXPECT_EQ(q.nested_absmax.numel(), 2);
}

TEST(Nf4, TheNestedMapIsSortedAndAlmostSymmetric) {
  const at::Tensor map = Nf4NestedQuantMap();
  ASSERT_EQ(map.numel(), 256);
  EXPECT_TRUE((map.diff() > 0).all().item<bool>());
  EXPECT_FLOAT_EQ(map[0].item<float>(), -0.99296875f);
  EXPECT_EQ(map[127].item<float>(), 0);
  EXPECT_EQ(map[255].item<float>(), 1);
  EXPECT_TRUE(at::equal(map.narrow(0, 0, 127), -map.narrow(0, 128, 127).flip(0)));
}

TEST(Nf4, DequantizingToBfloat16RoundsTheFloat32Value) {
  const Nf4Tensor q = QuantizeNf4(Random({40, 192}, at::kFloat, 5));
  at::Tensor fp32 = at::empty({40, 192}, at::kFloat), bf16 = at::empty({40, 192}, at::kBFloat16);
  DequantizeNf4(q, fp32);
  DequantizeNf4(q, bf16);
  EXPECT_TRUE(at::equal(fp32.to(at::kBFloat16), bf16));
}

}  // namespace
}  // namespace ll
