#include "worker/trainer/checkpoint/state.h"

#include <gtest/gtest.h>

namespace ll {
namespace {

TEST(SnapshotBuffers, WhatSomebodyHoldsIsNotUsedAgain) {
  SnapshotBuffers buffers;
  const at::Tensor ones = at::ones({3, 2}), twos = at::full({3, 2}, 2.0);
  at::Tensor held = buffers.Copy(ones);
  buffers.Begin();
  EXPECT_TRUE(at::equal(buffers.Copy(twos), twos));
  EXPECT_TRUE(at::equal(held, ones));

  buffers.Begin();
  at::Tensor view = buffers.Copy(ones).view({-1});
  buffers.Begin();
  EXPECT_TRUE(at::equal(buffers.Copy(twos), twos));
  EXPECT_TRUE(at::equal(view, at::ones({6})));
}

TEST(SnapshotBuffers, WhatNobodyHoldsIs) {
  SnapshotBuffers buffers;
  const at::Tensor ones = at::ones({1000});
  const void* first = buffers.Copy(ones).const_data_ptr();
  buffers.Begin();
  const at::Tensor second = buffers.Copy(at::zeros({1000}));
  EXPECT_EQ(second.const_data_ptr(), first);
  // Not of another shape, and not the training's own memory.
  EXPECT_TRUE(at::equal(buffers.Copy(at::ones({2})), at::ones({2})));
  EXPECT_NE(buffers.Copy(ones).const_data_ptr(), ones.const_data_ptr());
}

}  // namespace
}  // namespace ll
