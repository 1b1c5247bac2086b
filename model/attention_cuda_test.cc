// Attention on a GPU with LibTorch's kernels computed on the host: what is handed to them, and how
// their results are put together, against the CPU's own attention.
#include "model/attention_cuda.h"

#include "base/status_matchers.h"
#include "model/attention_calls.h"
#include "model/llama.h"
#include "model/plan/gpu_attention.h"
#include "model/shifted_attention.h"
#include "model/sliding_window.h"
#include "model/testing_gpu_attention.h"

namespace ll {
namespace {

struct Shape {
  int64_t tokens, heads, kv_heads, head_dim;
};

LlamaConfig ConfigOf(const Shape& s) {
  LlamaConfig c;
  c.num_attention_heads = s.heads;
  c.num_key_value_heads = s.kv_heads;
  c.head_dim = s.head_dim;
  c.hidden_size = s.heads * s.head_dim;
  return c;
}

struct Results {
  at::Tensor out, lse, dqkv;
};

using Documents = std::vector<std::pair<int64_t, int64_t>>;

Results Attend(const Shape& s, const AttentionSpec& spec, const Documents& documents,
               int64_t window, at::ScalarType type) {
  at::manual_seed(5);
  const int64_t width = (s.heads + 2 * s.kv_heads) * s.head_dim;
  const at::Tensor qkv = at::randn({s.tokens, width}).to(type);
  const at::Tensor dout = at::randn({s.tokens, s.heads * s.head_dim}).to(type);
  Results r{at::full({s.tokens, s.heads * s.head_dim}, NAN, qkv.options()),
            at::full({s.heads, s.tokens}, NAN), at::full({s.tokens, width}, NAN, qkv.options())};
  auto plan = MakeAttentionPlan(ConfigOf(s), spec, s.tokens, documents);
  LL_EXPECT_OK(plan.status());
  PlaceSequences(*plan, qkv.device());
  AttentionForward(*plan, window, qkv, r.out, r.lse);
  AttentionBackward(*plan, window, qkv, r.out, r.lse, dout, r.dqkv);
  return r;
}

double Error(const at::Tensor& got, const at::Tensor& expected) {
  const at::Tensor e = expected.to(at::kDouble);
  return ((got.to(at::kDouble) - e).norm() / e.norm()).item<double>();
}

class CudaAttention : public testing::Test {
 protected:
  void TearDown() override {
    UseGpuAttention(nullptr);
    UseAttentionTable(std::nullopt, 0);
    CudnnRefuses() = false;
  }
  // Runs it as a GPU of compute capability `major` and compares with the CPU.
  GpuAttentionCalls Compare(const Shape& s, const AttentionSpec& spec,
                            const Documents& documents = {}, int64_t window = 0, int major = 8,
                            at::ScalarType type = at::kBFloat16) {
    UseGpuAttention(nullptr);
    const Results expected = Attend(s, spec, documents, window, type);
    UseAttentionTable(std::nullopt, major);
    UseGpuAttention(&HostGpuAttention());
    CallsOfGpuAttention() = {};
    const Results got = Attend(s, spec, documents, window, type);
    const double bound = type == at::kFloat ? 1e-5 : 2e-2;
    EXPECT_LT(Error(got.out, expected.out), bound);
    EXPECT_LT(Error(got.lse, expected.lse), bound);
    EXPECT_LT(Error(got.dqkv, expected.dqkv), bound);
    return CallsOfGpuAttention();
  }
};

const AttentionSpec kS2{AttentionKind::kS2, WrapKind::kSplit, 32};

// Unshifted groups; whole shifted ones; half groups: forward and backward each.
TEST_F(CudaAttention, S2InThreeDenseCalls) {
  EXPECT_EQ(Compare({128, 4, 4, 64}, kS2), (GpuAttentionCalls{.flash = 6}));
  EXPECT_EQ(Compare({128, 4, 4, 64}, kS2, {}, 0, /*major=*/9), (GpuAttentionCalls{.cudnn = 6}));
  EXPECT_EQ(Compare({128, 4, 4, 64}, kS2, {}, 0, 9, at::kFloat),
            (GpuAttentionCalls{.efficient = 6}));
}

TEST_F(CudaAttention, GroupedHeadsAndOneKeyHeadOfBothHalves) {
  EXPECT_EQ(Compare({128, 8, 2, 32}, kS2), (GpuAttentionCalls{.flash = 6}));
  EXPECT_EQ(Compare({128, 8, 2, 32}, kS2, {}, 0, 9), (GpuAttentionCalls{.cudnn = 6}));
  Compare({128, 9, 3, 32}, kS2, {}, 0, 9);
  Compare({128, 9, 3, 32}, kS2, {}, 0, 9, at::kFloat);
  Compare({128, 4, 1, 32}, kS2, {}, 0, 9, at::kFloat);
}

TEST_F(CudaAttention, RaggedRowsFullAndShort) {
  Compare({203, 4, 2, 32}, kS2);
  EXPECT_EQ(Compare({100, 4, 2, 32}, {}, {}, 0, 9), (GpuAttentionCalls{.cudnn = 2}));
  Compare({128, 4, 2, 32}, {AttentionKind::kShort, WrapKind::kSplit, 32});
  Compare({128, 4, 2, 32}, {AttentionKind::kS2, WrapKind::kRoll, 32}, {}, 0, 9);
}

// One call for each half of the heads, however many documents there are, whatever the architecture.
TEST_F(CudaAttention, DocumentsArePacked) {
  const Documents documents = {{0, 1}, {1, 40}, {40, 111}, {111, 203}};
  EXPECT_EQ(Compare({203, 4, 2, 32}, kS2, documents, 0, 9), (GpuAttentionCalls{.packed = 4}));
  // A key head of both halves is a run of its own in each.
  EXPECT_EQ(Compare({203, 9, 3, 32}, kS2, documents), (GpuAttentionCalls{.packed = 8}));
  const Documents empty_too = {{0, 0}, {0, 30}, {30, 31}, {31, 31}, {31, 77}, {77, 100}};
  EXPECT_EQ(Compare({100, 4, 2, 32}, {}, empty_too), (GpuAttentionCalls{.packed = 2}));
  EXPECT_EQ(Compare({203, 4, 2, 32}, {}, documents, /*window=*/24),
            (GpuAttentionCalls{.packed = 2}));
}

TEST_F(CudaAttention, FewDocumentsAreDense) {
  EXPECT_EQ(Compare({100, 4, 2, 32}, {}, {{0, 50}, {50, 100}}, 0, 9),
            (GpuAttentionCalls{.cudnn = 2}));
}

// The kernel for fp32 knows neither windows nor packed sequences.
TEST_F(CudaAttention, DocumentsInFp32AreDense) {
  const GpuAttentionCalls calls =
      Compare({203, 4, 2, 32}, kS2, {{0, 1}, {1, 40}, {40, 111}, {111, 203}}, 0, 8, at::kFloat);
  EXPECT_EQ(calls.packed, 0);
  EXPECT_GT(calls.efficient, 0);
}

TEST_F(CudaAttention, Windows) {
  EXPECT_EQ(Compare({128, 4, 2, 32}, {}, {}, /*window=*/24, 9), (GpuAttentionCalls{.flash = 2}));
}

// LibTorch has no kernel for them there: an error of the job's, not of its host, before any work.
TEST_F(CudaAttention, WindowsInFp32AreRefused) {
  LlamaConfig config = ConfigOf({.tokens = 0, .heads = 2, .kv_heads = 2, .head_dim = 16});
  config.model_type = "mistral";
  config.vocab_size = 32;
  config.intermediate_size = 32;
  config.num_hidden_layers = 1;
  config.max_position_embeddings = 64;
  config.sliding_window = 8;
  RandomWeights weights(1, config);
  ModelOptions options;
  options.dtype = at::kFloat;
  LL_ASSERT_OK_AND_ASSIGN(const auto model, Llama::Create(config, weights, options));
  const auto nll = [&](int64_t tokens, AttentionSpec attention) {
    const at::Tensor ids = at::arange(tokens, at::kLong);
    return model->Nll({ids, ids, {}, 0}, attention, nullptr).status();
  };
  LL_EXPECT_OK(nll(9, {}));
  UseGpuAttention(&HostGpuAttention());
  LL_EXPECT_OK(nll(8, {}));
  LL_EXPECT_OK(nll(32, {AttentionKind::kShort, WrapKind::kSplit, 8}));
  EXPECT_THAT(nll(9, {}), StatusIs(absl::StatusCode::kInvalidArgument, "precision: expected bf16"));
}

TEST_F(CudaAttention, FlashGoesOnWhereCudnnRefuses) {
  CudnnRefuses() = true;
  EXPECT_EQ(Compare({128, 4, 4, 64}, kS2, {}, 0, 9), (GpuAttentionCalls{.flash = 6}));
}

// Fewer queries than keys, the last ones, as ranks that share a row have them.
TEST_F(CudaAttention, FewerQueriesThanKeys) {
  for (const at::ScalarType type : {at::kBFloat16, at::kFloat}) {
    at::manual_seed(3);
    const auto random = [&](int64_t heads, int64_t n) {
      return at::randn({2, heads, n, 32}).to(type);
    };
    const at::Tensor q = random(4, 24), k = random(2, 56), v = random(2, 56), dout = random(4, 24);
    const auto run = [&] {
      FlashAttentionForwardCall f{q, k, v, at::full_like(q, NAN), at::full({2, 4, 24}, NAN)};
      RunAttentionForward({f});
      FlashAttentionBackwardCall b{f.q,
                                   f.k,
                                   f.v,
                                   f.out,
                                   f.lse,
                                   dout,
                                   at::full_like(q, NAN),
                                   at::ones_like(k),
                                   at::ones_like(v),
                                   true};
      RunAttentionBackward({b});
      return std::vector<at::Tensor>{f.out, f.lse, b.dq, b.dk, b.dv};
    };
    UseGpuAttention(nullptr);
    const auto expected = run();
    UseGpuAttention(&HostGpuAttention());
    UseAttentionTable(std::nullopt, 9);
    const auto got = run();
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_LT(Error(got[i], expected[i]), type == at::kFloat ? 1e-5 : 2e-2) << i;
  }
}

TEST(GpuAttentionScratch, HeadsAtATimeStayWithinTheLimit) {
  // 7B, S²-Attn, 32,768 tokens: all heads of a half at once.
  GpuAttentionShape s{.batch = 4, .heads = 16, .kv_heads = 16, .queries = 8192, .keys = 8192};
  EXPECT_EQ(GpuAttentionHeads(s), 16);
  // dq's fp32 sum, row sums, and seven tensors of bf16.
  const int64_t n = 4 * 8192 * 16;
  EXPECT_EQ(GpuAttentionScratchBytes(s), n * 128 * 4 + n * 4 + 5 * n * 128 * 2);
  // 350,000 tokens: some after others, and then within the limit.
  s.queries = s.keys = 90112;
  const int64_t heads = GpuAttentionHeads(s);
  EXPECT_LT(heads, 16);
  EXPECT_GT(heads, 1);
  s.heads = s.kv_heads = heads;
  EXPECT_LE(GpuAttentionScratchBytes(s), kGpuAttentionScratch);
  s.heads = s.kv_heads = heads + 1;
  EXPECT_GT(GpuAttentionScratchBytes(s), kGpuAttentionScratch);
  // One group at least, however much that takes; whole groups.
  EXPECT_EQ(GpuAttentionHeads({.heads = 64, .kv_heads = 8, .queries = 4000000, .keys = 4000000}),
            8);
  // A fixed order takes a sum for every multiprocessor that would be idle.
  GpuAttentionShape one{.batch = 1, .heads = 32, .kv_heads = 32, .queries = 1024, .keys = 1024};
  GpuAttentionShape fixed = one;
  fixed.deterministic = true;
  EXPECT_EQ(GpuAttentionScratchBytes(fixed) - GpuAttentionScratchBytes(one),
            4 * 1024 * 32 * 128 * 4);
}

}  // namespace
}  // namespace ll
