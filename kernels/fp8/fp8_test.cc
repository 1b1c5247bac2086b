#include "kernels/fp8/fp8.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

Fp8Rows EmptyRows(int64_t rows, int64_t width) {
  return {at::zeros({rows, width}, at::kByte).view(at::kFloat8_e4m3fn),
          at::zeros({rows}, at::kFloat)};
}
Fp8Rows Quantized(const at::Tensor& x, const at::Tensor& factors = {}) {
  Fp8Rows q = EmptyRows(x.size(0), x.size(1));
  QuantizeFp8(x, factors, q);
  return q;
}
at::Tensor Values(const Fp8Rows& q, const at::Tensor& factors = {}) {
  at::Tensor y = at::full(q.codes.sizes(), 7, at::kBFloat16);
  DequantizeFp8(q, factors, y);
  return y;
}
at::Tensor Bytes(const at::Tensor& codes) { return codes.view(at::kByte); }

// The definition: the smallest power of two that brings the largest magnitude within 448.
float ScaleOf(float largest) {
  float scale = std::exp2(-126.0f);
  while (largest / scale > kFp8Largest) scale *= 2;
  return largest == 0 ? 1 : scale;
}

// Claim: of every finite bf16 number there is, the code is torch's own conversion, bit for bit.
TEST(Fp8, CodesAreTorchsOfEveryBfloat16) {
  const at::Tensor all = at::arange(65536, at::kInt).to(at::kShort).view(at::kBFloat16);
  at::Tensor x = all.masked_select(all.abs() <= 448);
  x = at::cat({x, at::full({1}, 448, at::kBFloat16)}).view({1, -1});  // the scale is 1
  const Fp8Rows q = Quantized(x);
  ASSERT_EQ(q.scales[0].item<float>(), 1);
  EXPECT_GT(x.numel(), 34000);
  EXPECT_TRUE(at::equal(Bytes(q.codes), Bytes(x.to(at::kFloat8_e4m3fn))));
}

// Claim: each of the 256 codes has torch's value, and that value has the code again.
TEST(Fp8, EveryCodeHasItsValue) {
  Fp8Rows q = EmptyRows(1, 256);
  q.codes = at::arange(256, at::kInt).to(at::kByte).view(at::kFloat8_e4m3fn).view({1, 256});
  q.scales.fill_(1);
  const at::Tensor got = Values(q), want = q.codes.to(at::kFloat).to(at::kBFloat16);
  EXPECT_TRUE(at::equal(got.isnan(), want.isnan()));
  EXPECT_EQ(got.isnan().sum().item<int>(), 2);
  EXPECT_TRUE(at::equal(got.nan_to_num(0), want.nan_to_num(0)));
  const at::Tensor finite = got.masked_select(~got.isnan()).view({1, 254}).contiguous();
  const at::Tensor codes = Bytes(q.codes).masked_select(~got.isnan()).view({1, 254});
  EXPECT_TRUE(at::equal(Bytes(Quantized(finite).codes), codes));
}

// Claim: a row's scale is the definition's, over the whole range of bf16.
TEST(Fp8, ScalesAreTheSmallestPowersOfTwo) {
  for (int exponent = -133; exponent <= 127; exponent += 4) {
    for (const float mantissa : {1.0f, 1.5f, 1.75f, 1.7578125f, 1.9921875f}) {
      const at::Tensor x =
          at::full({1, 1}, std::ldexp(mantissa, exponent), at::kFloat).to(at::kBFloat16);
      const Fp8Rows q = Quantized(x);
      const float largest = x.item<float>();
      ASSERT_EQ(q.scales[0].item<float>(), ScaleOf(largest)) << largest;
    }
  }
}

// Claim: no element is off by more than half a step of four significant bits, or of the smallest
// code, and any row stride and width will do.
TEST(Fp8, RoundTripOfStridedRows) {
  for (const int64_t width : {1, 7, 16, 33, 576, 9000}) {
    const at::Tensor wide = Random({5, width + 3}, at::kBFloat16, 1, 30),
                     x = wide.narrow(1, 2, width);
    const Fp8Rows q = Quantized(x);
    const at::Tensor value = x.to(at::kDouble), got = Values(q).to(at::kDouble);
    const at::Tensor smallest = q.scales.to(at::kDouble).view({5, 1}) * std::exp2(-10);
    const at::Tensor allowed = at::maximum(value.abs() / 16, smallest.expand_as(value));
    EXPECT_TRUE(((got - value).abs() <= allowed).all().item<bool>()) << width;
  }
}

// Claim: factors multiply before the rounding and divide after it; powers of two cost no bits.
TEST(Fp8, FactorsAreThoseOfTheMultipliedColumns) {
  const at::Tensor x = Random({6, 75}, at::kBFloat16, 2);
  at::manual_seed(3);
  const at::Tensor factors = at::exp2(at::randint(-12, 4, {75}).to(at::kFloat));
  const Fp8Rows q = Quantized(x, factors), want = Quantized((x * factors).to(at::kBFloat16));
  EXPECT_TRUE(at::equal(Bytes(q.codes), Bytes(want.codes)));
  EXPECT_TRUE(at::equal(q.scales, want.scales));
  EXPECT_TRUE(
      at::equal(Values(q, factors), (Values(want).to(at::kFloat) / factors).to(at::kBFloat16)));
}

TEST(Fp8, ZerosAndWhatIsNotFinite) {
  at::Tensor x = Random({4, 40}, at::kBFloat16, 4);
  x[0].zero_();
  x[1][3] = std::numeric_limits<float>::infinity();
  x[2][39] = std::numeric_limits<float>::quiet_NaN();
  const Fp8Rows q = Quantized(x);
  const at::Tensor values = Values(q);
  EXPECT_EQ(q.scales[0].item<float>(), 1);
  EXPECT_TRUE(at::equal(values[0], x[0]));
  for (const int row : {1, 2}) {
    EXPECT_TRUE(q.scales[row].isnan().item<bool>());
    EXPECT_TRUE((Bytes(q.codes)[row] == 0x7f).all().item<bool>());
    EXPECT_TRUE(values[row].isnan().all().item<bool>());
  }
  EXPECT_TRUE(values[3].isfinite().all().item<bool>());
}

TEST(Fp8, EmptyShapes) {
  for (const auto& [rows, width] : {std::pair<int64_t, int64_t>{0, 5}, {3, 0}}) {
    const Fp8Rows q = Quantized(at::empty({rows, width}, at::kBFloat16));
    EXPECT_EQ(Values(q).numel(), 0);
    EXPECT_TRUE((q.scales == 1).all().item<bool>());
    at::Tensor transposed = at::empty({width, rows}, at::kByte);
    TransposeFp8(Bytes(q.codes), transposed);
  }
}

TEST(Fp8, Transposes) {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {3, 70}, {64, 64}, {65, 129}, {160, 48}, {128, 320}}) {
    at::manual_seed(5);
    const at::Tensor x = at::randint(0, 256, {rows, columns}, at::kByte);
    at::Tensor y = at::zeros({columns, rows}, at::kByte);
    TransposeFp8(x, y);
    EXPECT_TRUE(at::equal(y, x.t().contiguous())) << rows << " x " << columns;
  }
}

}  // namespace
}  // namespace ll
