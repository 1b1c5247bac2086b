// Ranks that divide the frozen matrices against a model that holds them.
#include "model/sharded_base.h"

#include <random>

#include "base/status_matchers.h"
#include "model/llama.h"
#include "model/testing_peers.h"

namespace ll {
namespace {

LlamaConfig Config(int64_t layers) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 64;
  config.intermediate_size = 192;
  config.num_hidden_layers = layers;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 16;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.15;
  config.tie_word_embeddings = true;
  return config;
}

std::unique_ptr<Llama> MakeModel(const LlamaConfig& config, const ModelOptions& options,
                                 RowPeers* base) {
  RandomWeights weights(7, config);
  auto model = Llama::Create(config, weights, options, base);
  if (!model.ok()) ADD_FAILURE() << model.status();
  at::manual_seed(7);
  for (Parameter& p : (*model)->parameters()) p.master.add_(at::ones_like(p.master), 0.05);
  (*model)->CastMastersToCompute();
  return *std::move(model);
}

Row RandomRow(int64_t tokens, std::mt19937& random) {
  std::vector<int64_t> ids;
  for (int64_t t = 0; t < tokens; ++t) ids.push_back(random() % 61);
  const at::Tensor all = at::tensor(ids, at::kLong);
  return {all, all.roll(-1), {}, 0};
}

// Rank r runs rows r, r + W, …; the last ones sit out.
TEST(ShardedBase, LossesAndGradientsAreThoseOfAWholeBaseBitForBit) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(static_cast<uint32_t>(seed));
  for (int round = 0; round < 12; ++round) {
    const int ranks = 2 + static_cast<int>(random() % 3);
    const LlamaConfig config = Config(1 + static_cast<int64_t>(random() % 4));
    ModelOptions options;
    options.dtype = random() % 2 == 0 ? at::kFloat : at::kBFloat16;
    options.recompute = static_cast<Recompute>(random() % 3);
    // fp8 wants bf16.
    options.base = static_cast<BaseFormat>(random() % (options.dtype == at::kFloat ? 2 : 3));
    options.lora = {4, 8, 0, {"q_proj", "v_proj", "down_proj"}, false};
    options.train_norm = options.train_embedding = random() % 2 == 0;
    std::vector<Row> rows;
    for (size_t i = 0; i < 1 + random() % 5; ++i) rows.push_back(RandomRow(20, random));
    const AttentionSpec attention{AttentionKind::kS2, WrapKind::kSplit, 8};
    SCOPED_TRACE(testing::Message()
                 << ranks << " ranks, " << config.num_hidden_layers << " layers, base "
                 << static_cast<int>(options.base) << ", " << rows.size() << " rows");
    ThreadPeers::Run(ranks, [&](ThreadPeers& peers) {
      const auto divided = MakeModel(config, options, &peers);
      const auto whole = MakeModel(config, options, nullptr);
      for (int pass = 0; pass < 2; ++pass) {
        for (size_t first = 0; first < rows.size(); first += static_cast<size_t>(ranks)) {
          const size_t i = first + static_cast<size_t>(peers.rank());
          if (i >= rows.size()) {
            LL_EXPECT_OK(divided->SitOut(/*backward=*/pass == 0));
            continue;
          }
          if (pass == 0) {
            LL_ASSERT_OK_AND_ASSIGN(const double got,
                                    divided->ForwardBackward(rows[i], attention, 0.25));
            LL_ASSERT_OK_AND_ASSIGN(const double expected,
                                    whole->ForwardBackward(rows[i], attention, 0.25));
            EXPECT_EQ(got, expected);
          } else {
            LL_ASSERT_OK_AND_ASSIGN(const double got, divided->Nll(rows[i], attention));
            LL_ASSERT_OK_AND_ASSIGN(const double expected, whole->Nll(rows[i], attention));
            EXPECT_EQ(got, expected);
          }
        }
      }
      for (size_t i = 0; i < whole->parameters().size(); ++i) {
        EXPECT_TRUE(at::equal(divided->parameters()[i].grad, whole->parameters()[i].grad))
            << whole->parameters()[i].name;
      }
      EXPECT_EQ(divided->Weight("model.layers.0.mlp.up_proj.weight").status().code(),
                absl::StatusCode::kFailedPrecondition);
    });
  }
}

// What a pass of L layers receives, and what a rank holds.
TEST(ShardedBase, MemoryAndBytesFollowTheFormula) {
  constexpr int kRanks = 4;
  constexpr int64_t kBytes = 4 * 64 * 1000, kLayers = 6;
  ThreadPeers::Run(kRanks, [&](ThreadPeers& peers) {
    ShardedBase base(peers);
    std::vector<at::Tensor> layers;
    for (int64_t l = 0; l < kLayers; ++l) {
      layers.push_back(at::full({kBytes / 4}, static_cast<float>(l)));
      base.AddLayer({layers.back()});
    }
    EXPECT_EQ(base.HeldBytes(), kLayers * kBytes / kRanks + 2 * kBytes);
    base.StartPass({0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0});
    for (size_t l : {0, 1, 2, 3, 4, 5, 5, 4, 3, 2, 1, 0}) {
      LL_ASSERT_OK(base.Use(l));
      EXPECT_EQ(layers[l].sum().item<float>(), static_cast<float>(l) * kBytes / 4);
    }
    // Forward all of them, backward all but the two that were still there.
    EXPECT_EQ(peers.bytes_sent, (kRanks - 1) * (2 * kLayers - 2) * kBytes / kRanks);
  });
}

}  // namespace
}  // namespace ll
