// Forward and backward on bf16 tensors against attention in fp64, with torch's bf16 kernel as the
// measure of what error is fair; layouts, bounds and determinism. The AMX kernels where the CPU has
// AMX, else the fp32 ones; those every instruction set runs (LL_CPU_ISA).
#include "kernels/flash_attention/flash_attention_torch.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/common/dispatch.h"
#include "kernels/flash_attention/flash_attention.h"

namespace ll {
namespace {

constexpr uint64_t kSeed = 20240611;

struct Gradients {
  at::Tensor out, lse, dq, dk, dv;
};

struct Inputs {
  at::Tensor q, k, v, dout;
  double scale = 1;
  bool causal = true;
  int64_t group() const { return q.size(1) / k.size(1); }
};

at::Generator Generator(uint64_t seed) {
  std::printf("seed %lu\n", static_cast<unsigned long>(seed));
  return at::detail::createCPUGenerator(seed);
}

Inputs Random(int64_t batch, int64_t heads, int64_t kv_heads, int64_t nq, int64_t nk, int64_t dim,
              bool causal, double spread = 1, at::ScalarType type = at::kBFloat16) {
  at::Generator g = Generator(kSeed + nq * 131 + nk * 17 + dim);
  const auto make = [&](int64_t h, int64_t n) {
    return at::randn({batch, h, n, dim}, g, at::TensorOptions().dtype(at::kFloat))
        .mul(spread)
        .to(type);
  };
  return {make(heads, nq), make(kv_heads, nk),         make(kv_heads, nk),
          make(heads, nq), 1 / std::sqrt(double(dim)), causal};
}

// [B, H, N, D] gradient per query head -> per KV head.
at::Tensor SumGroups(const at::Tensor& x, int64_t group) {
  return x.reshape({x.size(0), x.size(1) / group, group, x.size(2), x.size(3)}).sum(2);
}

Gradients Reference(const Inputs& in) {
  const at::Tensor q = in.q.to(at::kDouble), dout = in.dout.to(at::kDouble);
  const at::Tensor k = in.k.to(at::kDouble).repeat_interleave(in.group(), 1);
  const at::Tensor v = in.v.to(at::kDouble).repeat_interleave(in.group(), 1);
  const int64_t nq = q.size(2), nk = k.size(2);
  at::Tensor s = at::matmul(q, k.transpose(2, 3)) * in.scale;
  if (in.causal) {
    const at::Tensor hidden = at::ones({nq, nk}, at::kBool).triu(nk - nq + 1);
    s = s.masked_fill(hidden, -std::numeric_limits<double>::infinity());
  }
  Gradients r;
  r.lse = s.logsumexp(3);
  const at::Tensor p = at::exp(s - r.lse.unsqueeze(3));
  r.out = at::matmul(p, v);
  const at::Tensor dp = at::matmul(dout, v.transpose(2, 3));
  const at::Tensor ds = p * (dp - (dout * r.out).sum(3, true)) * in.scale;
  r.dq = at::matmul(ds, k);
  r.dk = SumGroups(at::matmul(ds.transpose(2, 3), q), in.group());
  r.dv = SumGroups(at::matmul(p.transpose(2, 3), dout), in.group());
  return r;
}

// Torch's own kernel. Its causal mask is aligned to the top left, so missing queries are put in
// front as zeros.
Gradients Torch(const Inputs& in) {
  const int64_t pad = in.causal ? in.k.size(2) - in.q.size(2) : 0;
  const auto padded = [&](const at::Tensor& x) { return at::constant_pad_nd(x, {0, 0, pad, 0}); };
  const auto cut = [&](const at::Tensor& x) { return x.narrow(2, pad, x.size(2) - pad); };
  const at::Tensor q = padded(in.q), k = in.k.repeat_interleave(in.group(), 1);
  const at::Tensor v = in.v.repeat_interleave(in.group(), 1);
  const auto [out, lse] =
      at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, in.causal, {}, in.scale);
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      padded(in.dout), q, k, v, out, lse, 0.0, in.causal, {}, in.scale);
  return {cut(out), cut(lse), cut(dq), SumGroups(dk.to(at::kFloat), in.group()),
          SumGroups(dv.to(at::kFloat), in.group())};
}

Gradients Empty(const Inputs& in) {
  const auto nan = [](const at::Tensor& like) { return at::full_like(like, std::nan("")); };
  return {nan(in.q), at::full({in.q.size(0), in.q.size(1), in.q.size(2)}, std::nan(""), at::kFloat),
          nan(in.q), nan(in.k), nan(in.v)};
}

void RunInto(const Inputs& in, Gradients& r) {
  FlashAttentionForward({{in.q, in.k, in.v, r.out, r.lse}}, in.scale, in.causal);
  FlashAttentionBackward({{in.q, in.k, in.v, r.out, r.lse, in.dout, r.dq, r.dk, r.dv}}, in.scale,
                         in.causal);
}

Gradients Attend(const Inputs& in) {
  Gradients r = Empty(in);
  RunInto(in, r);
  return r;
}

double MaxError(const at::Tensor& x, const at::Tensor& reference) {
  return (x.to(at::kDouble) - reference).abs().max().item<double>();
}

// At most twice torch's error, or twice what rounding the exact result to the output's type costs.
void ExpectClose(const char* name, const at::Tensor& ours, const at::Tensor& torch,
                 const at::Tensor& reference) {
  const double largest = reference.abs().max().item<double>();
  const double rounding = MaxError(reference.to(ours.scalar_type()), reference);
  const double allowed =
      2 * std::max(MaxError(torch, reference), rounding) + 1e-6 * std::max(1.0, largest);
  EXPECT_LE(MaxError(ours, reference), allowed) << name << ", largest value " << largest;
  EXPECT_TRUE(at::isfinite(ours).all().item<bool>()) << name;
}

void ExpectAllClose(const Inputs& in, const Gradients& ours) {
  const Gradients torch = Torch(in), reference = Reference(in);
  ExpectClose("out", ours.out, torch.out, reference.out);
  ExpectClose("lse", ours.lse, torch.lse, reference.lse);
  ExpectClose("dq", ours.dq, torch.dq, reference.dq);
  ExpectClose("dk", ours.dk, torch.dk, reference.dk);
  ExpectClose("dv", ours.dv, torch.dv, reference.dv);
}

void ExpectSameBits(const Gradients& a, const Gradients& b) {
  EXPECT_TRUE(a.out.equal(b.out));
  EXPECT_TRUE(a.lse.equal(b.lse));
  EXPECT_TRUE(a.dq.equal(b.dq));
  EXPECT_TRUE(a.dk.equal(b.dk));
  EXPECT_TRUE(a.dv.equal(b.dv));
}

TEST(FlashAttentionTest, SupportsExactlyItsHeadDims) {
  EXPECT_EQ(FlashAttentionSupported(64), CpuHasAmx() && __builtin_cpu_supports("avx512bf16"));
  for (const int64_t bad : {0, 8, 24, 65, 144, 256})
    EXPECT_FALSE(FlashAttentionSupported(bad)) << bad;
}

// {batch, heads, kv heads, queries, keys, head dim, causal}
using Shape = std::tuple<int, int, int, int, int, int, bool>;
class FlashAttentionShapeTest : public testing::TestWithParam<Shape> {};

TEST_P(FlashAttentionShapeTest, MatchesFp64AsWellAsTorchDoes) {
  const auto [b, h, kv, nq, nk, d, causal] = GetParam();
  const Inputs in = Random(b, h, kv, nq, nk, d, causal);
  ExpectAllClose(in, Attend(in));
}

INSTANTIATE_TEST_SUITE_P(
    Lengths, FlashAttentionShapeTest,
    testing::Values(Shape{1, 1, 1, 1, 1, 64, true}, Shape{2, 3, 1, 7, 7, 64, true},
                    Shape{1, 2, 2, 31, 31, 64, true}, Shape{1, 2, 2, 32, 32, 64, true},
                    Shape{1, 2, 1, 63, 63, 64, true}, Shape{1, 2, 1, 65, 65, 64, true},
                    Shape{1, 2, 1, 127, 127, 64, true}, Shape{1, 2, 1, 129, 129, 64, true},
                    Shape{1, 1, 1, 513, 513, 64, true}, Shape{2, 3, 1, 1000, 1000, 64, true},
                    Shape{1, 9, 3, 1024, 1024, 64, true}, Shape{1, 2, 2, 1100, 1100, 128, true}));
INSTANTIATE_TEST_SUITE_P(
    HeadDims, FlashAttentionShapeTest,
    testing::Values(Shape{1, 2, 1, 200, 200, 16, true}, Shape{1, 2, 1, 200, 200, 32, true},
                    Shape{1, 2, 1, 200, 200, 48, true}, Shape{1, 2, 1, 200, 200, 80, true},
                    Shape{1, 2, 1, 200, 200, 96, true}, Shape{1, 2, 1, 200, 200, 112, true},
                    Shape{2, 4, 2, 200, 200, 128, true}));
INSTANTIATE_TEST_SUITE_P(UnequalLengths, FlashAttentionShapeTest,
                         testing::Values(Shape{1, 2, 1, 1, 77, 64, true},
                                         Shape{1, 2, 1, 40, 41, 64, true},
                                         Shape{1, 4, 2, 100, 333, 64, true},
                                         Shape{1, 2, 2, 128, 700, 128, true}));
INSTANTIATE_TEST_SUITE_P(NotCausal, FlashAttentionShapeTest,
                         testing::Values(Shape{1, 2, 1, 65, 65, 64, false},
                                         Shape{1, 2, 1, 200, 33, 64, false},
                                         Shape{1, 2, 2, 33, 300, 96, false},
                                         Shape{1, 2, 1, 1, 1, 64, false}));

// fp32 throughout: {batch, heads, kv heads, queries, keys, head dim, causal} as above.
class FlashAttentionFp32Test : public testing::TestWithParam<Shape> {};
TEST_P(FlashAttentionFp32Test, MatchesFp64AsWellAsTorchDoes) {
  const auto [b, h, kv, nq, nk, d, causal] = GetParam();
  const Inputs in = Random(b, h, kv, nq, nk, d, causal, 1, at::kFloat);
  ExpectAllClose(in, Attend(in));
}
INSTANTIATE_TEST_SUITE_P(
    Shapes, FlashAttentionFp32Test,
    testing::Values(Shape{1, 1, 1, 1, 1, 64, true}, Shape{1, 2, 1, 33, 33, 64, true},
                    Shape{2, 3, 1, 301, 301, 16, true}, Shape{1, 6, 2, 300, 300, 80, true},
                    Shape{1, 2, 1, 200, 200, 256, true}, Shape{1, 4, 2, 100, 333, 64, true},
                    Shape{1, 2, 1, 40, 41, 64, true}, Shape{1, 2, 2, 33, 300, 96, false},
                    Shape{1, 40, 1, 70, 70, 64, true}, Shape{1, 3, 1, 600, 600, 64, true}));

// What is merged with other results is rounded afterwards: rounded here it is the rounded result.
TEST(FlashAttentionTest, GivesResultsBeforeTheyAreRounded) {
  const Inputs in = Random(2, 6, 2, 150, 170, 48, true);
  const Gradients rounded = Attend(in);
  const auto wide = [](const at::Tensor& like) {
    return at::full(like.sizes(), std::nan(""), at::kFloat);
  };
  const at::Tensor out = wide(in.q), lse = wide(rounded.lse), dq = wide(in.q), dk = wide(in.k),
                   dv = wide(in.v);
  FlashAttentionForward({{in.q, in.k, in.v, out, lse}}, in.scale, true);
  FlashAttentionBackward({{in.q, in.k, in.v, rounded.out, lse, in.dout, dq, dk, dv}}, in.scale,
                         true);
  ExpectSameBits(rounded, {out.to(at::kBFloat16), lse, dq.to(at::kBFloat16), dk.to(at::kBFloat16),
                           dv.to(at::kBFloat16)});
  EXPECT_FALSE(out.equal(rounded.out.to(at::kFloat)));
  // Keys' and values' alone, added to what is there.
  const at::Tensor narrow_dq = at::empty_like(in.q), dk2 = dk.clone(), dv2 = dv.clone();
  FlashAttentionBackward({{in.q, in.k, in.v, rounded.out, lse, in.dout, narrow_dq, dk2, dv2, true}},
                         in.scale, true);
  EXPECT_TRUE(narrow_dq.equal(rounded.dq));
  EXPECT_TRUE(dk2.equal(dk.add(dk)));
  EXPECT_TRUE(dv2.equal(dv.add(dv)));
}

TEST(FlashAttentionTest, TakesScoresOfAnySizeWithoutNan) {
  for (const double spread : {12.0, 1e4}) {
    const Inputs in = Random(1, 2, 1, 150, 150, 64, true, spread);
    const Gradients r = Attend(in), torch = Torch(in), reference = Reference(in);
    for (const at::Tensor& x : {r.out, r.lse, r.dq, r.dk, r.dv})
      EXPECT_TRUE(at::isfinite(x).all().item<bool>());
    ExpectClose("lse", r.lse, torch.lse, reference.lse);
    // Where one key takes all the weight torch copies its value exactly; ours divides a rounded
    // weight by its sum.
    const double rounding = reference.out.abs().max().item<double>() / 256;
    EXPECT_LE(MaxError(r.out, reference.out),
              std::max(2 * MaxError(torch.out, reference.out), rounding));
  }
}

// A row of q, k and v together, cut into groups as S²-Attn does: the first and last half group are
// a batch of two with stride N - G/2, and the whole shifted groups overlap nothing but share their
// row with them.
TEST(FlashAttentionTest, WorksOnViewsOfOneRowAndWritesNothingElse) {
  constexpr int64_t kTokens = 264, kGroup = 66, kHeads = 3, kDim = 64, kWidth = (kHeads + 2) * kDim;
  at::Generator g = Generator(kSeed);
  const at::Tensor row = at::randn({kTokens, kWidth}, g, at::TensorOptions()).to(at::kBFloat16);
  const at::Tensor dout =
      at::randn({kTokens, kHeads * kDim}, g, at::TensorOptions()).to(at::kBFloat16);
  const auto view = [](const at::Tensor& x, int64_t head, int64_t heads, int64_t begin,
                       int64_t stride, int64_t count, int64_t length) {
    const int64_t ld = x.stride(0);
    return x.as_strided({count, heads, length, kDim}, {stride * ld, kDim, ld, 1},
                        begin * ld + head * kDim);
  };
  constexpr float kCanary = 42;
  at::Tensor out = at::full({kTokens, (kHeads + 1) * kDim}, kCanary, at::kBFloat16);
  at::Tensor drow = at::full({kTokens, kWidth + kDim}, kCanary, at::kBFloat16);
  at::Tensor lse = at::full({kHeads, kTokens + 3}, kCanary, at::kFloat);
  struct Part {
    int64_t begin, stride, count, length;
  };
  const Part parts[] = {{kGroup / 2, kGroup, 3, kGroup}, {0, kTokens - kGroup / 2, 2, kGroup / 2}};
  std::vector<FlashAttentionForwardCall> forward;
  std::vector<FlashAttentionBackwardCall> backward;
  for (const Part& p : parts) {
    const auto part = [&](const at::Tensor& x, int64_t head, int64_t heads) {
      return view(x, head, heads, p.begin, p.stride, p.count, p.length);
    };
    const at::Tensor part_lse =
        lse.as_strided({p.count, kHeads, p.length}, {p.stride, kTokens + 3, 1}, p.begin);
    const at::Tensor q = part(row, 0, kHeads), k = part(row, kHeads, 1),
                     v = part(row, kHeads + 1, 1);
    forward.push_back({q, k, v, part(out, 0, kHeads), part_lse});
    backward.push_back({q, k, v, part(out, 0, kHeads), part_lse, part(dout, 0, kHeads),
                        part(drow, 0, kHeads), part(drow, kHeads, 1), part(drow, kHeads + 1, 1)});
  }
  const double scale = 0.125;
  FlashAttentionForward(forward, scale, true);
  FlashAttentionBackward(backward, scale, true);
  for (size_t i = 0; i < forward.size(); ++i) {
    const Inputs in{forward[i].q.clone(),
                    forward[i].k.clone(),
                    forward[i].v.clone(),
                    backward[i].dout.clone(),
                    scale,
                    true};
    ExpectSameBits(Attend(in), {forward[i].out, forward[i].lse, backward[i].dq, backward[i].dk,
                                backward[i].dv});
    ExpectAllClose(
        in, {forward[i].out, forward[i].lse, backward[i].dq, backward[i].dk, backward[i].dv});
  }
  EXPECT_TRUE((out.narrow(1, kHeads * kDim, kDim) == kCanary).all().item<bool>());
  EXPECT_TRUE((drow.narrow(1, kWidth, kDim) == kCanary).all().item<bool>());
  EXPECT_TRUE((lse.narrow(1, kTokens, 3) == kCanary).all().item<bool>());
}

TEST(FlashAttentionTest, TouchesNoMemoryOutsideItsViews) {
  for (const auto& [n, d] : {std::pair<int64_t, int64_t>{45, 48}, {33, 64}, {1, 16}}) {
    for (const bool at_end : {true, false}) {
      constexpr size_t kPage = 4096;
      std::vector<std::pair<void*, size_t>> maps;
      // A tensor whose first or last byte lies beside a page that nobody may touch.
      const auto guarded = [&](at::IntArrayRef sizes, at::ScalarType type) {
        size_t bytes = at::elementSize(type);
        for (const int64_t s : sizes) bytes *= s;
        const size_t pages = (bytes + kPage - 1) / kPage;
        char* base = static_cast<char*>(
            mmap(nullptr, (pages + 2) * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        EXPECT_EQ(mprotect(base + kPage, pages * kPage, PROT_READ | PROT_WRITE), 0);
        maps.push_back({base, (pages + 2) * kPage});
        return at::from_blob(at_end ? base + (pages + 1) * kPage - bytes : base + kPage, sizes,
                             at::TensorOptions().dtype(type));
      };
      const Inputs plain = Random(1, 2, 1, n, n, d, true);
      const auto copy = [&](const at::Tensor& x) {
        at::Tensor y = guarded(x.sizes(), x.scalar_type());
        y.copy_(x);
        return y;
      };
      const Inputs in{copy(plain.q),    copy(plain.k), copy(plain.v),
                      copy(plain.dout), plain.scale,   true};
      Gradients r{copy(plain.q), guarded({1, 2, n}, at::kFloat), copy(plain.q), copy(plain.k),
                  copy(plain.v)};
      RunInto(in, r);
      ExpectSameBits(r, Attend(plain));
      for (const auto& [base, bytes] : maps) munmap(base, bytes);
    }
  }
}

TEST(FlashAttentionTest, AddsToKeyAndValueGradientsWhenAsked) {
  const Inputs in = Random(1, 2, 1, 70, 70, 64, true);
  const Gradients once = Attend(in);
  Gradients twice = once;
  twice.dk = once.dk.clone();
  twice.dv = once.dv.clone();
  FlashAttentionBackward(
      {{in.q, in.k, in.v, once.out, once.lse, in.dout, once.dq, twice.dk, twice.dv, true}},
      in.scale, true);
  const Gradients reference = Reference(in), torch = Torch(in);
  ExpectClose("dk", twice.dk, torch.dk * 2, reference.dk * 2);
  ExpectClose("dv", twice.dv, torch.dv * 2, reference.dv * 2);
}

TEST(FlashAttentionTest, IsTheSameBitForBitAgainAndForEveryNumberOfThreads) {
  const Inputs in = Random(3, 6, 2, 700, 700, 64, true);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Gradients one = Attend(in);
  ExpectSameBits(one, Attend(in));
  for (const int count : {2, 5}) {
    at::set_num_threads(count);
    ExpectSameBits(one, Attend(in));
  }
  at::set_num_threads(threads);
}

}  // namespace
}  // namespace ll
