#include "kernels/transpose/transpose.h"

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

TEST(Transpose, EqualsTheDefinitionOnOddSizesToo) {
  for (const int64_t rows : {1, 31, 32, 33, 96}) {
    for (const int64_t columns : {1, 15, 16, 17, 64, 130}) {
      const at::Tensor x = Random({rows, columns}, at::kBFloat16, 1);
      at::Tensor y = at::full({columns, rows}, 7, at::kBFloat16);
      TransposeInto(x, y);
      EXPECT_TRUE(at::equal(y, x.t())) << rows << " x " << columns;
    }
  }
}

TEST(Transpose, WritesItsColumnsOfAWiderMatrixOnly) {
  const at::Tensor x = Random({40, 48}, at::kBFloat16, 2);
  at::Tensor wide = at::full({48, 100}, 7, at::kBFloat16), want = wide.clone();
  at::Tensor part = wide.narrow(1, 32, 40);
  TransposeInto(x, part);
  want.narrow(1, 32, 40).copy_(x.t());
  EXPECT_TRUE(at::equal(wide, want));
}

}  // namespace
}  // namespace ll
