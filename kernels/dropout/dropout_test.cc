#include <algorithm>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Dropout, MaskDependsOnItsNameAlone) {
  const at::Tensor ones = at::ones({64, 50});
  at::Tensor a = at::empty_like(ones), b = at::empty_like(ones), other_key = at::empty_like(ones);
  at::Tensor other_stream = at::empty_like(ones), shorter = at::empty({10, 50});
  Dropout(ones, 0.25, 7, 1, a);
  at::Tensor last_rows = at::empty({54, 50});
  Dropout(ones.narrow(0, 10, 54), 0.25, 7, 1, last_rows, /*first_row=*/10);
  EXPECT_TRUE(at::equal(last_rows, a.narrow(0, 10, 54)));
  Dropout(ones, 0.25, 7, 1, b);
  Dropout(ones, 0.25, 8, 1, other_key);
  Dropout(ones, 0.25, 7, 2, other_stream);
  Dropout(at::ones({10, 50}), 0.25, 7, 1, shorter);
  EXPECT_TRUE(at::equal(a, b));
  EXPECT_FALSE(at::equal(a, other_key));
  EXPECT_FALSE(at::equal(a, other_stream));
  EXPECT_TRUE(at::equal(a.narrow(0, 0, 10), shorter));
  EXPECT_TRUE(((a == 0) | (a == 1)).all().item<bool>());
  EXPECT_NEAR(DropoutScale(0.25), 1 / 0.75, 1e-12);
  EXPECT_NEAR(DropoutScale(0.05), 65536.0 / (65536 - 3277), 1e-12);
}

// Philox4x32-10 (Salmon et al. 2011) as the paper writes it, one counter at a time.
uint32_t PhiloxWord(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, int word) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c[4] = {c0, c1, c2, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0], b = uint64_t{0xCD9E8D57} * c[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(a)};
    std::copy(next, next + 4, c);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c[word];
}

// The mask is part of what a resumed training must repeat, on every instruction set.
TEST(Dropout, MaskIsPhiloxOfKeyRowAndFeature) {
  constexpr uint64_t kKey = 0x123456789abcdef0;
  constexpr uint32_t kStream = 7, kThreshold = 3u << 14;  // p = 0.75
  for (const int64_t width : {1, 15, 64, 70, 145, 300}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = at::randn({3, width}).to(dtype);
      at::Tensor y = at::empty_like(x);
      Dropout(x, 0.75, kKey, kStream, y);
      for (int64_t row = 0; row < 3; ++row) {
        for (int64_t i = 0; i < width; ++i) {
          const int64_t vector = i % 128 / 16;
          const uint32_t word = PhiloxWord(kKey, static_cast<uint32_t>(i / 128 * 16 + i % 16),
                                           static_cast<uint32_t>(row), kStream, vector / 2);
          const uint32_t bits = vector % 2 == 0 ? word & 0xffff : word >> 16;
          const float want = bits < kThreshold ? 0.0f : x[row][i].item<float>();
          ASSERT_EQ(y[row][i].item<float>(), want) << width << " " << row << " " << i;
        }
      }
    }
  }
}

TEST(Dropout, InPlace) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({5, 70}).to(dtype);
    at::Tensor y = at::empty_like(x), in_place = x.clone();
    Dropout(x, 0.25, 7, 1, y);
    Dropout(in_place, 0.25, 7, 1, in_place);
    EXPECT_TRUE(at::equal(in_place, y));
  }
}

TEST(Dropout, KeepsTheExpectedShare) {
  const at::Tensor ones = at::ones({1000, 100});
  at::Tensor y = at::empty_like(ones);
  Dropout(ones, 0.1, 12345, 0, y);
  // 100,000 draws: a standard deviation of 0.001.
  EXPECT_NEAR(y.eq(0).to(at::kFloat).mean().item<double>(), 0.1, 0.006);
  // Neighbours are independent.
  const at::Tensor zero = y.eq(0).to(at::kFloat);
  EXPECT_NEAR((zero.narrow(1, 0, 99) * zero.narrow(1, 1, 99)).mean().item<double>(), 0.01, 0.003);
  EXPECT_NEAR((zero.narrow(0, 0, 999) * zero.narrow(0, 1, 999)).mean().item<double>(), 0.01, 0.003);
}

}  // namespace
}  // namespace ll
