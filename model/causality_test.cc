// Who sees whom, by perturbation: a changed token may change only what attends to it, at any depth,
// length and packing. All comparisons are of bits, in fp32.
#include <algorithm>
#include <random>

#include "base/status_matchers.h"
#include "model/llama.h"
#include "model/plan/config.h"
#include "model/weight_source.h"

namespace ll {
namespace {

constexpr int64_t kVocab = 61;

using Documents = std::vector<std::pair<int64_t, int64_t>>;

std::unique_ptr<Llama> MakeModel(int64_t layers, int64_t heads, int64_t kv_heads, uint64_t seed) {
  const nlohmann::json config = {{"model_type", "llama"},           {"vocab_size", kVocab},
                                 {"hidden_size", heads * 8},        {"intermediate_size", 48},
                                 {"num_hidden_layers", layers},     {"num_attention_heads", heads},
                                 {"num_key_value_heads", kv_heads}, {"initializer_range", 0.3},
                                 {"max_position_embeddings", 128}};
  const LlamaConfig parsed = *ParseLlamaConfig(config.dump());
  RandomWeights weights(seed, parsed);
  ModelOptions options;
  options.dtype = at::kFloat;
  return *Llama::Create(parsed, weights, options);
}

// Log-likelihoods of fixed targets: they move with every logit of their position.
at::Tensor Outputs(Llama& model, const at::Tensor& tokens, const AttentionSpec& attention,
                   const Documents& documents = {}) {
  Row row;
  row.tokens = tokens;
  row.labels = at::arange(tokens.size(0), at::kLong).remainder(kVocab);
  row.documents = documents;
  at::Tensor nll;
  EXPECT_TRUE(model.Nll(row, attention, &nll).ok());
  return nll;
}

// Positions whose output changes when the token at `j` does.
std::vector<int64_t> Reached(Llama& model, const at::Tensor& tokens, const AttentionSpec& attention,
                             int64_t j, const Documents& documents = {}) {
  at::Tensor changed = tokens.clone();
  changed[j] = (changed[j].item<int64_t>() + 7) % kVocab;
  const at::Tensor before = Outputs(model, tokens, attention, documents),
                   after = Outputs(model, changed, attention, documents);
  std::vector<int64_t> reached;
  for (int64_t t = 0; t < tokens.size(0); ++t) {
    if (!at::equal(before[t], after[t])) reached.push_back(t);
  }
  return reached;
}

at::Tensor RandomTokens(int64_t n, std::mt19937& random) {
  at::Tensor tokens = at::empty({n}, at::kLong);
  for (int64_t t = 0; t < n; ++t) tokens[t] = static_cast<int64_t>(random() % kVocab);
  return tokens;
}

Documents RandomDocuments(int64_t n, std::mt19937& random) {
  Documents documents;
  for (int64_t begin = 0; begin < n;) {
    const int64_t end = std::min<int64_t>(n, begin + 1 + static_cast<int64_t>(random() % 30));
    documents.push_back({begin, end});
    begin = end;
  }
  return documents;
}

// Claim 2. Bits of earlier positions and of other documents stay, whatever the attention.
TEST(Causality, NothingReachesBackOrAcrossDocuments) {
  const unsigned seed = std::random_device()();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (const auto& [heads, kv_heads] : {std::pair{4, 4}, {8, 2}, {9, 3}}) {
    for (const int64_t layers : {1, 3, 9}) {
      const auto model = MakeModel(layers, heads, kv_heads, random());
      for (const AttentionKind kind :
           {AttentionKind::kS2, AttentionKind::kShort, AttentionKind::kFull}) {
        const int64_t n = 1 + static_cast<int64_t>(random() % 70),
                      group = 1 + static_cast<int64_t>(random() % 20),
                      j = static_cast<int64_t>(random() % n);
        const AttentionSpec attention{kind, WrapKind::kSplit, group};
        const at::Tensor tokens = RandomTokens(n, random);
        for (const Documents& documents : {Documents{}, RandomDocuments(n, random)}) {
          int64_t end = n;
          for (const auto& [first, last] : documents) {
            if (j >= first && j < last) end = last;
          }
          const std::vector<int64_t> reached = Reached(*model, tokens, attention, j, documents);
          SCOPED_TRACE(testing::Message()
                       << "kind " << static_cast<int>(kind) << " layers " << layers << " tokens "
                       << n << " group " << group << " changed " << j);
          ASSERT_FALSE(reached.empty());
          EXPECT_EQ(reached.front(), j);
          EXPECT_LT(reached.back(), end);
        }
      }
    }
  }
}

// Claim 3: with wrap: roll the last token reaches the first G/2 tokens in one layer, G/2 more with
// each layer, all of them after 2N/G layers.
TEST(Causality, RollingLeaksHalfAGroupALayer) {
  constexpr int64_t kTokens = 16, kGroup = 4;
  std::mt19937 random(5);
  const at::Tensor tokens = RandomTokens(kTokens, random);
  const AttentionSpec roll{AttentionKind::kS2, WrapKind::kRoll, kGroup},
      split{AttentionKind::kS2, WrapKind::kSplit, kGroup};
  for (int64_t layers = 1; layers <= 8; ++layers) {
    const auto model = MakeModel(layers, 4, 2, 1);
    std::vector<int64_t> want;
    for (int64_t t = 0; t < std::min(kTokens - 1, layers * kGroup / 2); ++t) want.push_back(t);
    want.push_back(kTokens - 1);
    EXPECT_EQ(Reached(*model, tokens, roll, kTokens - 1), want) << layers << " layers";
    EXPECT_EQ(Reached(*model, tokens, split, kTokens - 1), std::vector<int64_t>{kTokens - 1});
  }
  // One layer: exactly the queries 0..G/2-1 see the keys N-G/2..N-1.
  const auto model = MakeModel(1, 4, 2, 1);
  for (int64_t j = 0; j < kTokens; ++j) {
    const std::vector<int64_t> reached = Reached(*model, tokens, roll, j);
    EXPECT_EQ(reached.front(), j >= kTokens - kGroup / 2 ? 0 : j) << j;
  }
}

// Section 5: under split the first token reaches the last after 7 layers (G = N/4), not before.
TEST(Causality, SplitCarriesTheFirstTokenToTheLastInSevenLayers) {
  constexpr int64_t kTokens = 32;
  std::mt19937 random(6);
  const at::Tensor tokens = RandomTokens(kTokens, random);
  const AttentionSpec split{AttentionKind::kS2, WrapKind::kSplit, kTokens / 4};
  for (int64_t layers : {6, 7}) {
    const auto model = MakeModel(layers, 4, 4, 2);
    EXPECT_EQ(Reached(*model, tokens, split, 0).back() == kTokens - 1, layers >= 7) << layers;
  }
}

// Claim 4.
TEST(Causality, WideGroupsAreFullAttention) {
  std::mt19937 random(7);
  const auto model = MakeModel(3, 9, 3, 3);
  const AttentionSpec full{};
  for (const int64_t n : {1, 2, 15, 16}) {
    const at::Tensor tokens = RandomTokens(n, random), want = Outputs(*model, tokens, full);
    const AttentionSpec one_group{AttentionKind::kShort, WrapKind::kSplit, 16},
        half_group{AttentionKind::kS2, WrapKind::kSplit, 32};
    EXPECT_TRUE(at::allclose(Outputs(*model, tokens, one_group), want, 1e-6, 1e-6)) << n;
    EXPECT_TRUE(at::allclose(Outputs(*model, tokens, half_group), want, 1e-6, 1e-6)) << n;
  }
}

// Claim 5: with documents of one token attention is the identity, so every head must put each
// token's output where the token stands.
TEST(Causality, IdentityAttentionKeepsTheOrder) {
  std::mt19937 random(8);
  const auto model = MakeModel(2, 9, 3, 4);
  constexpr int64_t kTokens = 32;
  const at::Tensor tokens = RandomTokens(kTokens, random);
  Documents documents;
  for (int64_t t = 0; t < kTokens; ++t) documents.push_back({t, t + 1});
  for (const AttentionKind kind : {AttentionKind::kS2, AttentionKind::kShort}) {
    Row row;
    row.tokens = tokens;
    row.labels = tokens;
    row.documents = documents;
    at::Tensor nll;
    LL_ASSERT_OK(model->Nll(row, {kind, WrapKind::kSplit, 8}, &nll));
    for (int64_t t = 0; t < kTokens; ++t) {
      Row alone;
      alone.tokens = alone.labels = tokens.narrow(0, t, 1);
      at::Tensor want;
      LL_ASSERT_OK(model->Nll(alone, {}, &want));
      EXPECT_NEAR(nll[t].item<float>(), want[0].item<float>(), 1e-5) << t;
    }
  }
}

}  // namespace
}  // namespace ll
