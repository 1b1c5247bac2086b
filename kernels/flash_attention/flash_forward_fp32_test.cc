// The fp32 forward pass against attention in fp64, with torch's fp32 kernel as the measure of what
// error is fair; every instruction set runs it (LL_CPU_ISA).
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention_torch.h"
#include "kernels/flash_attention/flash_forward_fp32.h"

namespace ll {
namespace {

constexpr uint64_t kSeed = 20261122;

struct Inputs {
  at::Tensor q, k, v;
  double scale = 1;
  bool causal = true;
};

struct Outputs {
  at::Tensor out, lse;
};

Inputs Random(int64_t batch, int64_t heads, int64_t kv_heads, int64_t nq, int64_t nk, int64_t dim,
              bool causal, double spread = 1) {
  const uint64_t seed = kSeed + nq * 131 + nk * 17 + dim;
  std::printf("seed %lu\n", static_cast<unsigned long>(seed));
  at::Generator g = at::detail::createCPUGenerator(seed);
  const auto make = [&](int64_t h, int64_t n) {
    return at::randn({batch, h, n, dim}, g, at::TensorOptions().dtype(at::kFloat)).mul(spread);
  };
  return {make(heads, nq), make(kv_heads, nk), make(kv_heads, nk), 1 / std::sqrt(double(dim)),
          causal};
}

Outputs Reference(const Inputs& in) {
  const int64_t group = in.q.size(1) / in.k.size(1), nq = in.q.size(2), nk = in.k.size(2);
  const at::Tensor k = in.k.to(at::kDouble).repeat_interleave(group, 1),
                   v = in.v.to(at::kDouble).repeat_interleave(group, 1);
  at::Tensor s = at::matmul(in.q.to(at::kDouble), k.transpose(2, 3)) * in.scale;
  if (in.causal) {
    const at::Tensor hidden = at::ones({nq, nk}, at::kBool).triu(nk - nq + 1);
    s = s.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  }
  return {at::matmul(at::softmax(s, 3), v), s.logsumexp(3)};
}

// Torch's causal mask is aligned to the top left, so missing queries are put in front as zeros.
Outputs Torch(const Inputs& in) {
  const int64_t pad = in.causal ? in.k.size(2) - in.q.size(2) : 0, nq = in.q.size(2);
  const auto [out, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
      at::constant_pad_nd(in.q, {0, 0, pad, 0}), in.k, in.v, 0.0, in.causal, {}, in.scale);
  return {out.narrow(2, pad, nq), lse.narrow(2, pad, nq)};
}

Outputs Attend(const Inputs& in) {
  const Outputs r{at::full_like(in.q, std::nan("")),
                  at::full({in.q.size(0), in.q.size(1), in.q.size(2)}, std::nan(""), at::kFloat)};
  FlashAttentionForward({{in.q, in.k, in.v, r.out, r.lse}}, in.scale, in.causal);
  return r;
}

double MaxError(const at::Tensor& x, const at::Tensor& reference) {
  return (x.to(at::kDouble) - reference).abs().max().item<double>();
}

// At most twice torch's error, or twice what rounding the exact result to fp32 costs.
void ExpectClose(const char* name, const at::Tensor& ours, const at::Tensor& torch,
                 const at::Tensor& reference) {
  const double rounding = MaxError(reference.to(at::kFloat), reference);
  const double largest = reference.abs().max().item<double>();
  EXPECT_LE(MaxError(ours, reference),
            2 * std::max(MaxError(torch, reference), rounding) + 1e-7 * std::max(1.0, largest))
      << name << ", largest value " << largest;
  EXPECT_TRUE(at::isfinite(ours).all().item<bool>()) << name;
}

void ExpectAllClose(const Inputs& in, const Outputs& ours) {
  const Outputs torch = Torch(in), reference = Reference(in);
  ExpectClose("out", ours.out, torch.out, reference.out);
  ExpectClose("lse", ours.lse, torch.lse, reference.lse);
}

TEST(FlashForwardFp32Test, IsUsedExactlyWhereItIsFaster) {
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto usable = [&](int64_t dim) {
      return FlashAttentionUsable(at::zeros({1, 1, 1, dim}, type));
    };
    for (const int64_t dim : {16, 64, 80, 128, 256}) {
      const bool tiles = type == at::kBFloat16 && FlashAttentionSupported(dim);
      EXPECT_EQ(usable(dim), tiles || CpuIsa() != Isa::kGeneric) << dim;
    }
    for (const int64_t bad : {0, 8, 24, 65, 272}) EXPECT_FALSE(usable(bad)) << bad;
  }
  EXPECT_FALSE(FlashAttentionUsable(at::zeros({1, 1, 1, 64}, at::kDouble)));
}

// {batch, heads, kv heads, queries, keys, head dim, causal}
using Shape = std::tuple<int, int, int, int, int, int, bool>;
class FlashForwardFp32ShapeTest : public testing::TestWithParam<Shape> {};

TEST_P(FlashForwardFp32ShapeTest, MatchesFp64AsWellAsTorchDoes) {
  const auto [b, h, kv, nq, nk, d, causal] = GetParam();
  const Inputs in = Random(b, h, kv, nq, nk, d, causal);
  ExpectAllClose(in, Attend(in));
}

INSTANTIATE_TEST_SUITE_P(
    Lengths, FlashForwardFp32ShapeTest,
    testing::Values(Shape{1, 1, 1, 1, 1, 64, true}, Shape{2, 3, 1, 7, 7, 64, true},
                    Shape{1, 2, 2, 31, 31, 64, true}, Shape{1, 2, 2, 32, 32, 64, true},
                    Shape{1, 2, 1, 33, 33, 64, true}, Shape{1, 2, 1, 65, 65, 64, true},
                    Shape{1, 2, 1, 127, 127, 64, true}, Shape{1, 2, 1, 129, 129, 64, true},
                    Shape{1, 1, 1, 513, 513, 64, true}, Shape{2, 3, 1, 1000, 1000, 64, true},
                    Shape{1, 9, 3, 1024, 1024, 64, true}, Shape{1, 2, 2, 1100, 1100, 128, true}));
INSTANTIATE_TEST_SUITE_P(
    HeadDims, FlashForwardFp32ShapeTest,
    testing::Values(Shape{1, 2, 1, 200, 200, 16, true}, Shape{1, 2, 1, 200, 200, 48, true},
                    Shape{1, 2, 1, 200, 200, 80, true}, Shape{1, 2, 1, 200, 200, 96, true},
                    Shape{2, 4, 2, 200, 200, 128, true}, Shape{1, 2, 1, 200, 200, 256, true}));
INSTANTIATE_TEST_SUITE_P(UnequalLengths, FlashForwardFp32ShapeTest,
                         testing::Values(Shape{1, 2, 1, 1, 77, 64, true},
                                         Shape{1, 2, 1, 40, 41, 64, true},
                                         Shape{1, 4, 2, 100, 333, 64, true},
                                         Shape{1, 2, 2, 128, 700, 128, true}));
INSTANTIATE_TEST_SUITE_P(NotCausal, FlashForwardFp32ShapeTest,
                         testing::Values(Shape{1, 2, 1, 65, 65, 64, false},
                                         Shape{1, 2, 1, 200, 33, 64, false},
                                         Shape{1, 2, 2, 33, 300, 96, false},
                                         Shape{1, 2, 1, 1, 1, 64, false}));
// Heads that share a KV head, more than one task's share of the cache.
INSTANTIATE_TEST_SUITE_P(ManyQueryHeads, FlashForwardFp32ShapeTest,
                         testing::Values(Shape{1, 40, 1, 70, 70, 64, true},
                                         Shape{1, 24, 2, 50, 150, 128, true}));

TEST(FlashForwardFp32Test, NoQueriesAreNoWork) {
  const Inputs in = Random(1, 2, 1, 0, 5, 64, true);
  EXPECT_EQ(Attend(in).out.numel(), 0);
  const Inputs no_rows = Random(0, 2, 1, 5, 5, 64, true);
  EXPECT_EQ(Attend(no_rows).out.numel(), 0);
}

TEST(FlashForwardFp32Test, TakesScoresOfAnySize) {
  for (const double spread : {12.0, 1e4}) {
    const Inputs in = Random(1, 2, 1, 150, 150, 64, true, spread);
    ExpectAllClose(in, Attend(in));
  }
}

// A NaN must reach the loss: a query's in its own row, a key's or value's in the rows that see it
// (and a value's, times a weight of zero, in some before).
TEST(FlashForwardFp32Test, HandsOnNan) {
  const Inputs clean = Random(1, 1, 1, 150, 150, 64, true);
  for (const int which : {0, 1, 2}) {
    Inputs in = clean;
    at::Tensor& hit = which == 0 ? in.q : which == 1 ? in.k : in.v;
    hit = hit.clone();
    hit[0][0][70][3] = std::nan("");
    const Outputs r = Attend(in);
    const at::Tensor bad = at::isnan(r.out).any(3).flatten();
    EXPECT_TRUE(bad.narrow(0, 70, which == 0 ? 1 : 80).all().item<bool>()) << which;
    if (which < 2) {
      EXPECT_EQ(bad.sum().item<int64_t>(), which == 0 ? 1 : 80) << which;
    }
    EXPECT_EQ(at::isnan(r.lse).flatten()[70].item<bool>(), which < 2) << which;
  }
}

// Query, key and value heads of one row, as the model's projection leaves them, cut into shifted
// groups: a batch whose items overlap nothing but lie in the same rows.
TEST(FlashForwardFp32Test, WorksOnViewsOfOneRowAndWritesNothingElse) {
  constexpr int64_t kTokens = 264, kGroup = 66, kHeads = 3, kDim = 64, kWidth = (kHeads + 2) * kDim;
  constexpr float kCanary = 42;
  std::printf("seed %lu\n", static_cast<unsigned long>(kSeed));
  at::Generator g = at::detail::createCPUGenerator(kSeed);
  const at::Tensor row = at::randn({kTokens, kWidth}, g, at::TensorOptions());
  at::Tensor out = at::full({kTokens, (kHeads + 1) * kDim}, kCanary);
  at::Tensor lse = at::full({kHeads, kTokens + 3}, kCanary);
  struct Part {
    int64_t begin, stride, count, length;
  };
  std::vector<FlashAttentionForwardCall> calls;
  for (const Part& p :
       {Part{kGroup / 2, kGroup, 3, kGroup}, Part{0, kTokens - kGroup / 2, 2, kGroup / 2}}) {
    const auto view = [&](const at::Tensor& x, int64_t head, int64_t heads) {
      const int64_t ld = x.stride(0);
      return x.as_strided({p.count, heads, p.length, kDim}, {p.stride * ld, kDim, ld, 1},
                          p.begin * ld + head * kDim);
    };
    calls.push_back(
        {view(row, 0, kHeads), view(row, kHeads, 1), view(row, kHeads + 1, 1), view(out, 0, kHeads),
         lse.as_strided({p.count, kHeads, p.length}, {p.stride, kTokens + 3, 1}, p.begin)});
  }
  FlashAttentionForward(calls, 0.125, true);
  for (const FlashAttentionForwardCall& c : calls) {
    const Inputs in{c.q.clone(), c.k.clone(), c.v.clone(), 0.125, true};
    const Outputs alone = Attend(in);
    EXPECT_TRUE(alone.out.equal(c.out));
    EXPECT_TRUE(alone.lse.equal(c.lse));
    ExpectAllClose(in, {c.out, c.lse});
  }
  EXPECT_TRUE((out.narrow(1, kHeads * kDim, kDim) == kCanary).all().item<bool>());
  EXPECT_TRUE((lse.narrow(1, kTokens, 3) == kCanary).all().item<bool>());
}

// Every tensor's first or last byte lies beside a page that nobody may touch.
TEST(FlashForwardFp32Test, TouchesNoMemoryOutsideItsViews) {
  constexpr size_t kPage = 4096;
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{45, 48}, {33, 64}, {1, 16}}) {
    for (const bool at_end : {true, false}) {
      std::vector<std::pair<void*, size_t>> maps;
      const auto guarded = [&](const at::Tensor& x) {
        const size_t bytes = x.numel() * sizeof(float), pages = (bytes + kPage - 1) / kPage;
        char* base = static_cast<char*>(
            mmap(nullptr, (pages + 2) * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        EXPECT_EQ(mprotect(base + kPage, pages * kPage, PROT_READ | PROT_WRITE), 0);
        maps.push_back({base, (pages + 2) * kPage});
        return at::from_blob(at_end ? base + (pages + 1) * kPage - bytes : base + kPage, x.sizes(),
                             at::TensorOptions().dtype(at::kFloat))
            .copy_(x);
      };
      const Inputs plain = Random(1, 2, 1, n, n, d, true);
      const Outputs expected = Attend(plain);
      const Outputs r{guarded(plain.q), guarded(at::zeros({1, 2, n}))};
      FlashAttentionForward({{guarded(plain.q), guarded(plain.k), guarded(plain.v), r.out, r.lse}},
                            plain.scale, true);
      EXPECT_TRUE(r.out.equal(expected.out));
      EXPECT_TRUE(r.lse.equal(expected.lse));
      for (const auto& [base, bytes] : maps) munmap(base, bytes);
    }
  }
}

TEST(FlashForwardFp32Test, IsTheSameBitForBitAgainAndForEveryNumberOfThreads) {
  const Inputs in = Random(2, 6, 2, 1200, 1200, 64, true);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Outputs one = Attend(in);
  for (const int count : {1, 2, 5}) {
    at::set_num_threads(count);
    const Outputs again = Attend(in);
    EXPECT_TRUE(one.out.equal(again.out)) << count;
    EXPECT_TRUE(one.lse.equal(again.lse)) << count;
  }
  at::set_num_threads(threads);
}

// Torch's backward pass takes this forward's out and lse for its own.
TEST(FlashForwardFp32Test, TorchsBackwardTakesItsResults) {
  const Inputs in = Random(1, 4, 4, 300, 300, 64, true);
  const Outputs ours = Attend(in);
  at::Tensor leaves[3] = {in.q, in.k, in.v};
  Inputs exact{in.q.to(at::kDouble).requires_grad_(), in.k.to(at::kDouble).requires_grad_(),
               in.v.to(at::kDouble).requires_grad_(), in.scale, true};
  const at::Tensor dout = Random(1, 4, 4, 300, 300, 64, true).v.flip(2);
  Reference(exact).out.backward(dout.to(at::kDouble));
  const auto backward = [&](const at::Tensor& out, const at::Tensor& lse) {
    return at::_scaled_dot_product_flash_attention_for_cpu_backward(
        dout, leaves[0], leaves[1], leaves[2], out, lse, 0.0, true, {}, in.scale);
  };
  const Outputs torch = Torch(in);
  const auto [dq, dk, dv] = backward(ours.out, ours.lse);
  const auto [torch_dq, torch_dk, torch_dv] = backward(torch.out, torch.lse);
  ExpectClose("dq", dq, torch_dq, exact.q.grad());
  ExpectClose("dk", dk, torch_dk, exact.k.grad());
  ExpectClose("dv", dv, torch_dv, exact.v.grad());
}

}  // namespace
}  // namespace ll
