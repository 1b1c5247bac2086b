// A row divided between ranks against the same row on one: attention, losses, every gradient,
// bytes.
#include "model/shard_attention.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "kernels/flash_attention/flash_attention.h"
#include "kernels/flash_attention/flash_attention_torch.h"
#include "model/ring_attention.h"
#include "model/testing_gpu_attention.h"
#include "model/testing_peers.h"

namespace ll {
namespace {

constexpr int64_t kVocab = 61;

struct Job {
  LlamaConfig config;
  ModelOptions options;
  AttentionSpec attention;
  std::vector<Row> rows;
  std::string Text() const {
    return absl::StrCat("heads ", config.num_attention_heads, "/", config.num_key_value_heads,
                        " kind ", static_cast<int>(attention.kind), " group ",
                        attention.group_tokens, " tokens ", rows[0].tokens.numel(), " documents ",
                        rows[0].documents.size(), " recompute ",
                        static_cast<int>(options.recompute), " dropout ", options.lora.dropout,
                        " base ", static_cast<int>(options.base), " ", config.model_type);
  }
};

LlamaConfig Config(int64_t heads, int64_t kv_heads, int64_t head_dim, const std::string& type) {
  LlamaConfig config;
  config.vocab_size = kVocab;
  config.hidden_size = 64;
  config.intermediate_size = 64;
  config.num_hidden_layers = 2;
  config.num_attention_heads = heads;
  config.num_key_value_heads = kv_heads;
  config.head_dim = head_dim;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.15;
  config.tie_word_embeddings = true;
  config.model_type = type;
  return config;
}

Row RandomRow(int64_t tokens, bool packed, std::mt19937& random) {
  Row row;
  row.tokens = at::randint(0, kVocab, {tokens}, at::kLong);
  row.labels = at::randint(0, kVocab, {tokens}, at::kLong);
  row.labels[tokens - 1] = -100;
  if (tokens > 9) row.labels[7] = -100;
  for (int64_t at = 0; packed && at < tokens;) {
    const int64_t end = std::min<int64_t>(tokens, at + 1 + random() % 40);
    row.documents.emplace_back(at, end);
    at = end;
  }
  return row;
}

Job RandomJob(std::mt19937& random, at::ScalarType dtype) {
  const int64_t kv_heads = 1 + random() % 4;
  Job job;
  job.config =
      Config(kv_heads * (1 + random() % 3), kv_heads, 16, random() % 4 == 0 ? "qwen3" : "llama");
  job.options.dtype = dtype;
  job.options.recompute = static_cast<Recompute>(random() % 3);
  if (random() % 3 == 0) job.options.base = BaseFormat::kNf4;
  job.options.train_embedding = job.options.train_norm = random() % 2 == 0;
  job.options.lora = {4, 8, random() % 2 * 0.2, {"q_proj", "k_proj", "v_proj", "o_proj"}, false};
  const int64_t tokens = 2 + random() % 150;
  job.attention = {static_cast<AttentionKind>(random() % 4 == 0 ? 1 : 0), WrapKind::kSplit,
                   static_cast<int64_t>(1 + random() % tokens)};
  if (random() % 3 == 0) job.attention = {};
  const int rows = 1 + static_cast<int>(random() % 3);
  for (int i = 0; i < rows; ++i)
    job.rows.push_back(RandomRow(i == 0 ? tokens : 1 + random() % tokens, random() % 2, random));
  for (Row& row : job.rows) row.dropout_key = random();
  return job;
}

std::unique_ptr<Llama> MakeModel(const Job& job, uint64_t seed) {
  RandomWeights weights(seed, job.config);
  auto model = Llama::Create(job.config, weights, job.options);
  if (!model.ok()) ADD_FAILURE() << model.status();
  at::manual_seed(seed);
  for (Parameter& p : (*model)->parameters()) p.master.add_(at::randn(p.master.sizes()), 0.05);
  (*model)->CastMastersToCompute();
  return *std::move(model);
}

struct Result {
  double loss = 0;
  std::vector<at::Tensor> gradients;
  std::vector<int64_t> bytes_sent, exchanges;  // by rank
};

Result RunJob(const Job& job, uint64_t seed, int ranks) {
  std::vector<std::unique_ptr<Llama>> models;
  for (int rank = 0; rank < ranks; ++rank) models.push_back(MakeModel(job, seed));
  Result result;
  result.bytes_sent.resize(ranks);
  result.exchanges.resize(ranks);
  std::vector<double> losses(ranks);
  ThreadPeers::Run(ranks, [&](ThreadPeers& peers) {
    Llama& model = *models[peers.rank()];
    for (const Row& row : job.rows) {
      const auto loss = model.ForwardBackward(row, job.attention, 0.25, nullptr, &peers);
      ASSERT_TRUE(loss.ok()) << loss.status();
      losses[peers.rank()] += *loss;
    }
    result.bytes_sent[peers.rank()] = peers.bytes_sent;
    result.exchanges[peers.rank()] = peers.exchanges;
  });
  for (int rank = 0; rank < ranks; ++rank) {
    result.loss += losses[rank];
    for (size_t i = 0; i < models[rank]->parameters().size(); ++i) {
      const at::Tensor& grad = models[rank]->parameters()[i].grad;
      rank == 0 ? result.gradients.push_back(grad) : void(result.gradients[i].add_(grad));
    }
  }
  return result;
}

// What was seen, for the log.
struct {
  double loss = 0, gradients = 0, gradient = 0;
} largest;

// Losses and all gradients together within `tolerance`, each gradient within `each`: in bf16 a
// small one has few bits of its own.
void ExpectEqual(const Result& one, const Result& many, double tolerance, double each) {
  largest.loss = std::max(largest.loss, std::abs(many.loss - one.loss) / std::abs(one.loss));
  EXPECT_NEAR(many.loss, one.loss, tolerance * std::abs(one.loss));
  ASSERT_EQ(one.gradients.size(), many.gradients.size());
  double squares = 0, difference_squares = 0;
  std::vector<double> norms, differences;
  for (size_t i = 0; i < one.gradients.size(); ++i) {
    const double norm = one.gradients[i].norm().item<double>(),
                 difference = (many.gradients[i] - one.gradients[i]).norm().item<double>();
    differences.push_back(difference);
    norms.push_back(norm);
    squares += norm * norm;
    difference_squares += difference * difference;
  }
  const double total = std::sqrt(squares);
  largest.gradients = std::max(largest.gradients, std::sqrt(difference_squares) / total);
  EXPECT_LE(std::sqrt(difference_squares), tolerance * total + 1e-7);
  // Some are zero but for rounding (of keys that nobody chooses between).
  for (size_t i = 0; i < norms.size(); ++i) {
    largest.gradient = std::max(largest.gradient, differences[i] / (norms[i] + 0.1 * total));
    EXPECT_LE(differences[i], each * (norms[i] + 0.1 * total))
        << "gradient " << i << " of norm " << norms[i];
  }
}

class ShardedRows : public testing::Test {
 protected:
  // LL_SHARD_JOBS: so many times as many jobs.
  void Compare(at::ScalarType dtype, int jobs, double tolerance, double each) {
    const unsigned seed = std::random_device{}();
    if (const char* more = std::getenv("LL_SHARD_JOBS")) jobs *= std::atoi(more);
    largest = {};
    std::mt19937 random(seed);
    at::manual_seed(seed);
    for (int i = 0; i < jobs; ++i) {
      const Job job = RandomJob(random, dtype);
      SCOPED_TRACE(testing::Message() << "seed " << seed << " job " << i << ": " << job.Text());
      const Result one = RunJob(job, seed, 1);
      for (const int ranks : {2, 3, 4, 8}) {
        SCOPED_TRACE(testing::Message() << ranks << " ranks");
        const Result many = RunJob(job, seed, ranks);
        ExpectEqual(one, many, tolerance, each);
        // Every rank takes part in as many exchanges, or the next ones would not match.
        for (const int64_t exchanges : many.exchanges) EXPECT_EQ(exchanges, many.exchanges[0]);
        if (HasFailure()) return;
      }
    }
    std::printf(
        "seed %u: largest relative differences of a loss %.1e, of all gradients %.1e, of one "
        "%.1e\n",
        seed, largest.loss, largest.gradients, largest.gradient);
  }
};

TEST_F(ShardedRows, EqualOneRankInFp32) { Compare(at::kFloat, 60, 1e-5, 1e-5); }
TEST_F(ShardedRows, EqualOneRankInBf16) { Compare(at::kBFloat16, 30, 1e-2, 3e-2); }

// What the messages weigh, in bf16: S * H_kv * dh / 4 bytes a layer and rank going forward, as much
// back, and as much again where the layer is computed anew.
TEST(ShardedRow, BytesAreThoseOfTheFormulaAndOfTheExchange) {
  std::mt19937 random(1);
  for (const Recompute recompute : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    Job job;
    job.config = Config(4, 2, 16, "llama");
    job.options.recompute = recompute;
    job.options.lora = {4, 8, 0, {"q_proj"}, false};
    constexpr int64_t kTokens = 256;
    job.attention = {AttentionKind::kS2, WrapKind::kSplit, kTokens / 4};
    job.rows = {RandomRow(kTokens, false, random)};
    const int64_t formula = kTokens * 2 * 16 / 4, passes = recompute == Recompute::kFull ? 2 : 1,
                  layers = job.config.num_hidden_layers;
    for (const int ranks : {2, 4, 8}) {
      const Result result = RunJob(job, 3, ranks);
      for (int rank = 0; rank < ranks; ++rank) {
        const int64_t forward = rank + 1 < ranks ? passes * formula * layers : 0,
                      backward = rank > 0 ? formula * layers : 0;
        EXPECT_EQ(result.bytes_sent[rank], forward + backward) << rank << " of " << ranks;
      }
    }
  }
}

// Full attention goes round a ring: 4 (n - 1) / n S H_kv dh bytes forward in bf16 from every rank,
// and backward the same and the fp32 gradients n times a block.
TEST(ShardedRow, BytesOfTheRingAreThoseOfTheFormula) {
  std::mt19937 random(1);
  Job job;
  job.config = Config(4, 2, 16, "llama");
  job.options.lora = {4, 8, 0, {"q_proj"}, false};
  constexpr int64_t kTokens = 256;
  job.rows = {RandomRow(kTokens, false, random)};
  for (const int ranks : {2, 4, 8}) {
    const int64_t forward = 4 * (ranks - 1) * kTokens / ranks * 2 * 16,
                  gradients = 2 * 4 * kTokens * 2 * 16;
    for (const int64_t bytes : RunJob(job, 3, ranks).bytes_sent)
      EXPECT_EQ(bytes, job.config.num_hidden_layers * (2 * forward + gradients)) << ranks;
  }
}

// Every rank has the same number of (query, key) pairs.
TEST(RingAttention, WorkIsEqual) {
  constexpr int64_t kTokens = 1024;
  for (const int ranks : {2, 4, 8}) {
    std::vector<int64_t> pairs;
    for (int rank = 0; rank < ranks; ++rank) {
      LL_ASSERT_OK_AND_ASSIGN(const RingPlan plan,
                              MakeRingPlan(Config(4, 4, 16, "llama"), kTokens, {}, ranks, rank));
      pairs.push_back(0);
      for (const auto& block : plan.blocks) {
        if (!block) continue;
        pairs.back() +=
            (block->queries.end - block->queries.begin) * (block->keys.end - block->keys.begin);
      }
      if (plan.spanning) {
        const int64_t q = plan.spanning->queries.end - plan.spanning->queries.begin;
        pairs.back() += q * plan.spanning->queries.begin + q * (q + 1) / 2;
      }
      for (const Segment& s : plan.local.segments[0])
        pairs.back() += (s.end - s.begin) * (s.end - s.begin + 1) / 2;
    }
    EXPECT_EQ(*std::min_element(pairs.begin(), pairs.end()),
              *std::max_element(pairs.begin(), pairs.end()));
    EXPECT_EQ(std::accumulate(pairs.begin(), pairs.end(), int64_t{0}), kTokens * (kTokens + 1) / 2);
  }
}

// Full attention of one row, by as many ranks in a ring as `ranks`: [N, H D] and [N, (H + 2K) D].
struct Attended {
  at::Tensor out, dqkv;
};
Attended AttendInRing(const LlamaConfig& config, const at::Tensor& qkv, const at::Tensor& dout,
                      int ranks) {
  Attended whole{at::empty_like(dout), at::empty_like(qkv)};
  ThreadPeers::Run(ranks, [&](ThreadPeers& peers) {
    LL_ASSERT_OK_AND_ASSIGN(const RingPlan plan,
                            MakeRingPlan(config, qkv.size(0), {}, ranks, peers.rank()));
    const auto mine = [&](const at::Tensor& rows) {
      std::vector<at::Tensor> parts;
      for (const Segment& c : plan.chunks)
        parts.push_back(rows.narrow(0, c.begin, c.end - c.begin));
      return at::cat(parts);
    };
    const at::Tensor rows = mine(qkv);
    at::Tensor out = mine(whole.out), dqkv = mine(whole.dqkv),
               lse = at::empty({config.num_attention_heads, rows.size(0)}, at::kFloat);
    RingBuffers buffers;
    LL_ASSERT_OK(RingAttentionForward(plan, peers, rows, buffers, out, lse));
    LL_ASSERT_OK(RingAttentionBackward(plan, peers, rows, out, lse, mine(dout), buffers, dqkv));
    int64_t at = 0;
    for (const Segment& c : plan.chunks) {
      const int64_t n = c.end - c.begin;
      whole.out.narrow(0, c.begin, n).copy_(out.narrow(0, at, n));
      whole.dqkv.narrow(0, c.begin, n).copy_(dqkv.narrow(0, at, n));
      at += n;
    }
  });
  return whole;
}

Attended AttendInFp64(const LlamaConfig& config, const at::Tensor& qkv, const at::Tensor& dout) {
  const int64_t n = qkv.size(0), d = config.head_dim, heads = config.num_attention_heads,
                kv_heads = config.num_key_value_heads;
  const auto of = [&](const at::Tensor& rows, int64_t first, int64_t count) {
    return rows.narrow(1, first * d, count * d).view({n, count, d}).transpose(0, 1);
  };
  const testing_gpu_attention::Exact exact(of(qkv, 0, heads), of(qkv, heads, kv_heads),
                                           of(qkv, heads + kv_heads, kv_heads), /*causal=*/true,
                                           /*window=*/0, /*bottom_right=*/true);
  const auto g = exact.Back(exact.Out(), exact.lse, of(dout, 0, heads), kv_heads);
  const auto rows = [n](const at::Tensor& t) { return t.transpose(0, 1).reshape({n, -1}); };
  return {rows(exact.Out()), at::cat({rows(g.dq), rows(g.dk), rows(g.dv)}, 1)};
}

double RelativeError(const at::Tensor& got, const at::Tensor& exact) {
  return ((got.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

// Claim: that a GPU's kernels round each turn's part to bf16 before it is merged costs less than
// the rounding of the result itself, and not more the more turns there are: the weights of the
// parts add up to one. The kernels here are exact but for that, so that nothing hides it.
TEST(RingAttention, PartsThatAGpuRoundsCostLessThanTheResultsOwnRounding) {
  at::manual_seed(11);
  const LlamaConfig config = Config(4, 2, 32, "llama");
  const at::Tensor qkv = at::randn({512, (4 + 2 * 2) * 32}).to(at::kBFloat16),
                   dout = at::randn({512, 4 * 32}).to(at::kBFloat16);
  const Attended exact = AttendInFp64(config, qkv, dout);
  UseGpuAttention(&HostGpuAttention());
  for (const int ranks : {2, 4, 8}) {
    // The same values as fp32: nothing is rounded but what is merged, once, at the end.
    Attended once = AttendInRing(config, qkv.to(at::kFloat), dout.to(at::kFloat), ranks);
    for (at::Tensor* t : {&once.out, &once.dqkv}) *t = t->to(at::kBFloat16);
    const Attended each = AttendInRing(config, qkv, dout, ranks);
    const double out_once = RelativeError(once.out, exact.out),
                 out_each = RelativeError(each.out, exact.out),
                 gradient_once = RelativeError(once.dqkv, exact.dqkv),
                 gradient_each = RelativeError(each.dqkv, exact.dqkv);
    std::printf("%d ranks: output %.2e, rounded once %.2e; gradients %.2e, rounded once %.2e\n",
                ranks, out_each, out_once, gradient_each, gradient_once);
    EXPECT_GT(out_once, 1e-4);
    EXPECT_LT(out_each, std::sqrt(2.0) * out_once);
    EXPECT_LT(gradient_each, 2 * gradient_once);
  }
  UseGpuAttention(nullptr);
}

// `most`: how far a value may be from what one rank computes; 0: not at all.
void ExpectForward(int64_t tokens, std::initializer_list<at::ScalarType> types, double most = 0) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  at::manual_seed(seed);
  for (const at::ScalarType dtype : types) {
    for (const auto& [heads, kv_heads] :
         {std::pair<int64_t, int64_t>{4, 4}, {6, 2}, {9, 3}, {4, 1}}) {
      constexpr int64_t kHeadDim = 32;
      const LlamaConfig config = Config(heads, kv_heads, kHeadDim, "llama");
      const AttentionSpec spec{AttentionKind::kS2, WrapKind::kSplit, tokens / 4};
      LL_ASSERT_OK_AND_ASSIGN(const AttentionPlan whole,
                              MakeAttentionPlan(config, spec, tokens, {}));
      const at::Tensor qkv = at::randn({tokens, (heads + 2 * kv_heads) * kHeadDim}).to(dtype);
      at::Tensor out = at::empty({tokens, heads * kHeadDim}, dtype),
                 lse = at::empty({heads, tokens}, at::kFloat);
      AttentionForward(whole, 0, qkv, out, lse);
      for (const int ranks : {2, 4, 8}) {
        ThreadPeers::Run(ranks, [&](ThreadPeers& peers) {
          LL_ASSERT_OK_AND_ASSIGN(const ShardPlan plan,
                                  MakeShardPlan(config, spec, tokens, {}, ranks, peers.rank()));
          const int64_t begin = plan.shard.begin, n = plan.local.tokens;
          at::Tensor received = at::empty({plan.ReceivedElements()}, dtype);
          at::Tensor mine = at::empty({n, heads * kHeadDim}, dtype),
                     my_lse = at::empty({heads, n}, at::kFloat);
          LL_ASSERT_OK(ShardAttentionForward(plan, peers, qkv.narrow(0, begin, n).contiguous(),
                                             received, mine, my_lse));
          EXPECT_TRUE(at::allclose(mine, out.narrow(0, begin, n), /*rtol=*/0, most))
              << c10::toString(dtype) << " " << heads << "/" << kv_heads << " rank " << peers.rank()
              << " of " << ranks;
          EXPECT_TRUE(at::allclose(my_lse, lse.narrow(1, begin, n), /*rtol=*/0, most));
        });
      }
    }
  }
}

// Where shards begin at the kernels' tiles a rank computes what one rank does, bit for bit.
TEST(ShardedAttention, ForwardIsEqualBitForBitWhereTilesAlign) {
  ExpectForward(1024, {at::kFloat, at::kBFloat16});
}

// A query of the fp32 passes does not depend on the others of its tile; in torch's kernel, which
// computes where they cannot (LL_CPU_ISA=generic), it does, by roundings.
TEST(ShardedAttention, ForwardInFp32IsEqualEverywhere) {
  const bool ours = FlashAttentionUsable(at::empty({1, 1, 1, 32}));
  ExpectForward(1000, {at::kFloat}, ours ? 0 : 1e-5);
  if (ours && !FlashAttentionSupported(32)) ExpectForward(1003, {at::kBFloat16});
}

TEST(ShardedRow, RefusesWhatCannotBeDivided) {
  LlamaConfig config = Config(4, 2, 16, "llama");
  EXPECT_THAT(MakeShardPlan(config, {AttentionKind::kS2, WrapKind::kRoll, 16}, 64, {}, 2, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, "context_parallel"));
  config.sliding_window = 8;
  EXPECT_THAT(MakeShardPlan(config, {AttentionKind::kS2, WrapKind::kSplit, 16}, 64, {}, 2, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, "sliding_window"));
  EXPECT_TRUE(MakeShardPlan(config, {AttentionKind::kS2, WrapKind::kSplit, 8}, 64, {}, 2, 0).ok());
}

}  // namespace
}  // namespace ll
