#include <cmath>

#include "gtest/gtest.h"
#include "kernels/ops.h"
#include "kernels/testing.h"

namespace ll {
namespace {

struct Shape {
  int64_t heads, kv_heads, dim, keys;
};

TEST(DecodeAttention, MatchesSoftmaxInFp64) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Shape& s : {Shape{1, 1, 16, 1},
                           {4, 4, 8, 3},
                           {9, 3, 64, 255},
                           {9, 3, 64, 256},
                           {8, 2, 80, 257},
                           {6, 1, 10, 1000},
                           {32, 8, 128, 777}}) {
      SCOPED_TRACE(testing::Message() << dtype << " heads " << s.heads << "/" << s.kv_heads
                                      << " of " << s.dim << ", keys " << s.keys);
      // The cache is longer than what is attended to.
      const at::Tensor q = Random({s.heads, s.dim}, dtype, 1),
                       k = Random({s.kv_heads, s.keys + 9, s.dim}, dtype, 2).narrow(1, 5, s.keys),
                       v = Random({s.kv_heads, s.keys + 9, s.dim}, dtype, 3).narrow(1, 5, s.keys);
      at::Tensor out = at::empty_like(q);
      DecodeAttention(q, k, v, out);
      const int64_t group = s.heads / s.kv_heads;
      const at::Tensor keys = k.to(at::kDouble).repeat_interleave(group, 0),
                       values = v.to(at::kDouble).repeat_interleave(group, 0);
      const at::Tensor scores = keys.matmul(q.to(at::kDouble).unsqueeze(2)).squeeze(2) /
                                std::sqrt(static_cast<double>(s.dim));
      ExpectClose(out, at::softmax(scores, 1).unsqueeze(1).matmul(values).squeeze(1));
    }
  }
}

// Scores of hundreds, as trained models have them: e to their power is beyond fp32.
TEST(DecodeAttention, LargeScoresDoNotOverflow) {
  const at::Tensor q = Random({2, 16}, at::kFloat, 1) * 300,
                   k = Random({1, 600, 16}, at::kFloat, 2), v = Random({1, 600, 16}, at::kFloat, 3);
  at::Tensor out = at::empty_like(q);
  DecodeAttention(q, k, v, out);
  const at::Tensor scores = q.to(at::kDouble).matmul(k[0].to(at::kDouble).t()) / 4.0;
  ExpectClose(out, at::softmax(scores, 1).matmul(v[0].to(at::kDouble)));
}

}  // namespace
}  // namespace ll
