// The hand-written forward and backward pass against an obvious one. Every trained weight's
// gradient is compared in fp32.
#include "model/llama.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <tuple>

#include "gmock/gmock.h"
#include "kernels/ops.h"
#include "model/segments.h"
#include "model/testing_reference.h"

namespace ll {
namespace {

struct Case {
  std::string name;
  int64_t heads = 4, kv_heads = 4, head_dim = 8, tokens = 32;
  AttentionSpec attention;
  std::vector<std::pair<int64_t, int64_t>> documents;
  Recompute recompute = Recompute::kNone;
  bool tied = true, train_all = false, embed_norm = true;
  LoraSpec lora = {4, 8, 0, {"q_proj", "k_proj", "v_proj", "o_proj"}, false};
  int64_t chunk = 0, tile = kTileTokens;
  std::string model_type = "llama";
  int64_t window = 0;
  std::vector<bool> windowed_layers;
  BaseFormat base = BaseFormat::kCompute;
};

LlamaConfig SmallConfig(const Case& c) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_hidden_layers = 3;
  config.num_attention_heads = c.heads;
  config.num_key_value_heads = c.kv_heads;
  config.head_dim = c.head_dim;
  config.max_position_embeddings = 64;
  config.initializer_range =
      0.2;  // large enough that attention and activations are far from linear
  config.tie_word_embeddings = c.tied;
  config.model_type = c.model_type;
  config.sliding_window = c.window;
  config.windowed_layers = c.windowed_layers;
  return config;
}

std::unique_ptr<Llama> MakeModel(const Case& c, uint64_t seed, at::ScalarType dtype = at::kFloat) {
  ModelOptions options;
  options.dtype = dtype;
  options.recompute = c.recompute;
  options.base = c.base;
  options.train_all = c.train_all;
  options.train_embedding = options.train_norm = c.embed_norm;
  if (!c.train_all) options.lora = c.lora;
  options.loss_chunk_tokens = c.chunk;
  options.tile_tokens = c.tile;
  options.seed = seed;
  const LlamaConfig config = SmallConfig(c);
  RandomWeights weights(seed, config);
  auto model = Llama::Create(config, weights, options);
  if (!model.ok()) ADD_FAILURE() << model.status();
  // LoRA's B starts at zero and norms at one: move every trained weight so that each gradient
  // matters.
  at::manual_seed(seed);
  for (Parameter& p : (*model)->parameters()) p.master.add_(at::randn(p.master.sizes()), 0.05);
  (*model)->CastMastersToCompute();
  return *std::move(model);
}

Row MakeRow(const Case& c, uint64_t seed) {
  at::manual_seed(seed + 1);
  Row row;
  row.tokens = at::randint(0, 61, {c.tokens}, at::kLong);
  row.labels = at::randint(0, 61, {c.tokens}, at::kLong);
  row.labels.narrow(0, c.tokens - 2, 2).fill_(-100);
  if (c.tokens > 5) row.labels[4] = -100;
  row.documents = c.documents;
  row.dropout_key = c.lora.dropout > 0 ? 77 : 0;
  return row;
}

class LlamaParity : public testing::TestWithParam<Case> {};

TEST_P(LlamaParity, LossAndEveryGradientMatchAutograd) {
  const Case& c = GetParam();
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  const auto model = MakeModel(c, seed);
  const Row row = MakeRow(c, seed);
  const double grad_scale = 0.25;

  LlamaReference reference(*model);
  at::Tensor loss = reference.Loss(row, c.attention) * grad_scale;
  loss.backward();
  model->ZeroGrad();
  const auto got = model->ForwardBackward(row, c.attention, grad_scale);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_NEAR(*got * grad_scale, loss.item<double>(), 1e-5 * std::abs(loss.item<double>()));
  ASSERT_FALSE(model->parameters().empty());
  for (const Parameter& p : model->parameters()) {
    const at::Tensor expected = reference.Gradient(p.name);
    ASSERT_TRUE(expected.defined()) << p.name;
    const double scale = std::max(expected.abs().max().item<double>(), 1e-3);
    EXPECT_GT(expected.abs().max().item<double>(), 1e-7)
        << p.name << ": the test does not exercise this weight";
    EXPECT_LT((p.grad - expected).abs().max().item<double>(), 1e-5 * scale + 1e-6)
        << p.name << " of size " << scale;
  }
  // The evaluation path gives the same sum, and gradients add up.
  if (row.dropout_key == 0) {
    at::Tensor nll;
    EXPECT_NEAR(*model->Nll(row, c.attention, &nll), *got, 1e-5 * *got);
    EXPECT_EQ(nll.numel(), c.tokens);
  }
  const at::Tensor once = model->parameters().back().grad.clone();
  ASSERT_TRUE(model->ForwardBackward(row, c.attention, grad_scale).ok());
  EXPECT_TRUE(at::allclose(model->parameters().back().grad, once * 2, 1e-5, 1e-6));
}

AttentionSpec S2(int64_t group, WrapKind wrap = WrapKind::kSplit) {
  return {AttentionKind::kS2, wrap, group};
}

const LoraSpec kAllLinear = {
    4, 4, 0, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}, true};
const LoraSpec kWithDropout = {4, 4, 0.3, {"q_proj", "v_proj", "up_proj", "down_proj"}, false};

INSTANTIATE_TEST_SUITE_P(
    Shapes, LlamaParity,
    testing::Values(
        Case{.name = "full"}, Case{.name = "s2", .attention = S2(8)},
        Case{.name = "s2_gqa_cut", .heads = 9, .kv_heads = 3, .attention = S2(8)},
        Case{.name = "s2_gqa_even", .heads = 8, .kv_heads = 2, .attention = S2(8)},
        Case{.name = "s2_mqa", .heads = 6, .kv_heads = 1, .attention = S2(8)},
        Case{.name = "s2_one_head", .heads = 1, .kv_heads = 1, .attention = S2(8)},
        Case{.name = "s2_h64_k8", .heads = 64, .kv_heads = 8, .head_dim = 2, .attention = S2(8)},
        Case{.name = "s2_odd", .heads = 9, .kv_heads = 3, .tokens = 37, .attention = S2(9)},
        Case{.name = "s2_below_half_group", .tokens = 8, .attention = S2(16)},
        Case{.name = "s2_documents",
             .heads = 9,
             .kv_heads = 3,
             .tokens = 37,
             .attention = S2(9),
             .documents = {{0, 1}, {1, 12}, {12, 37}}},
        Case{.name = "short",
             .tokens = 37,
             .attention = {AttentionKind::kShort, WrapKind::kSplit, 9}},
        Case{.name = "full_documents", .tokens = 37, .documents = {{0, 30}, {30, 37}}},
        Case{.name = "roll", .attention = S2(8, WrapKind::kRoll)},
        Case{
            .name = "roll_gqa_cut", .heads = 9, .kv_heads = 3, .attention = S2(8, WrapKind::kRoll)},
        Case{.name = "selective", .attention = S2(8), .recompute = Recompute::kSelective},
        Case{.name = "recompute_full", .attention = S2(8), .recompute = Recompute::kFull},
        Case{.name = "untied", .attention = S2(8), .tied = false},
        Case{.name = "all_linear",
             .attention = S2(8),
             .recompute = Recompute::kSelective,
             .lora = kAllLinear},
        Case{.name = "lora_only", .attention = S2(8), .embed_norm = false},
        Case{.name = "dropout",
             .attention = S2(8),
             .recompute = Recompute::kFull,
             .lora = kWithDropout},
        Case{.name = "train_all_tied", .attention = S2(8), .train_all = true},
        Case{.name = "train_all_untied",
             .attention = S2(8),
             .recompute = Recompute::kSelective,
             .tied = false,
             .train_all = true},
        Case{.name = "chunked_head", .tokens = 37, .attention = S2(9), .chunk = 5},
        Case{.name = "tiles", .tokens = 37, .attention = S2(9), .lora = kAllLinear, .tile = 5},
        Case{.name = "tiles_selective",
             .tokens = 37,
             .attention = S2(9),
             .recompute = Recompute::kSelective,
             .tile = 36},
        Case{.name = "tiles_recompute_dropout",
             .tokens = 37,
             .attention = S2(9),
             .recompute = Recompute::kFull,
             .lora = kWithDropout,
             .tile = 16},
        Case{
            .name = "tiles_train_all", .recompute = Recompute::kFull, .train_all = true, .tile = 7},
        Case{.name = "qwen2",
             .heads = 9,
             .kv_heads = 3,
             .attention = S2(8),
             .recompute = Recompute::kFull,
             .model_type = "qwen2"},
        Case{.name = "qwen2_all", .attention = S2(8), .train_all = true, .model_type = "qwen2"},
        Case{.name = "qwen3",
             .heads = 9,
             .kv_heads = 3,
             .tokens = 37,
             .attention = S2(9),
             .lora = kAllLinear,
             .model_type = "qwen3"},
        Case{.name = "qwen3_recompute",
             .kv_heads = 2,
             .attention = S2(8),
             .recompute = Recompute::kFull,
             .model_type = "qwen3"},
        Case{.name = "qwen3_frozen_norms",
             .kv_heads = 2,
             .attention = S2(8),
             .embed_norm = false,
             .model_type = "qwen3"},
        Case{.name = "qwen3_all",
             .recompute = Recompute::kSelective,
             .tied = false,
             .train_all = true,
             .model_type = "qwen3"},
        Case{.name = "window_full",
             .heads = 4,
             .kv_heads = 2,
             .tokens = 37,
             .model_type = "mistral",
             .window = 7},
        Case{.name = "window_of_two", .tokens = 9, .model_type = "mistral", .window = 2},
        Case{.name = "window_s2",
             .heads = 9,
             .kv_heads = 3,
             .tokens = 41,
             .attention = S2(12),
             .documents = {{0, 3}, {3, 22}, {22, 41}},
             .model_type = "mistral",
             .window = 5},
        Case{.name = "window_longer_than_groups",
             .tokens = 37,
             .attention = S2(9),
             .model_type = "mistral",
             .window = 9},
        Case{.name = "window_some_layers",
             .tokens = 37,
             .model_type = "qwen2",
             .window = 6,
             .windowed_layers = {false, true, true}},
        Case{.name = "window_many_blocks",
             .heads = 2,
             .kv_heads = 1,
             .tokens = 700,
             .model_type = "mistral",
             .window = 300}),
    [](const auto& info) { return info.param.name; });

// bf16 has no exact reference: it must stay within a few of its own roundings of the fp32 result,
// as a whole vector.
void ExpectBfloat16FollowsFloat32(const Case& c) {
  const auto fp32 = MakeModel(c, 5), bf16 = MakeModel(c, 5, at::kBFloat16);
  const Row row = MakeRow(c, 5);
  for (size_t i = 0; i < fp32->parameters().size(); ++i) {
    fp32->parameters()[i].master.copy_(bf16->parameters()[i].compute);
  }
  const double a = *fp32->ForwardBackward(row, c.attention, 1.0),
               b = *bf16->ForwardBackward(row, c.attention, 1.0);
  EXPECT_NEAR(b, a, 0.02 * a);
  for (size_t i = 0; i < fp32->parameters().size(); ++i) {
    const at::Tensor x = fp32->parameters()[i].grad.flatten(),
                     y = bf16->parameters()[i].grad.flatten();
    const double cosine = (x.dot(y) / (x.norm() * y.norm())).item<double>();
    EXPECT_GT(cosine, 0.98) << fp32->parameters()[i].name;
    EXPECT_NEAR((y.norm() / x.norm()).item<double>(), 1.0, 0.1) << fp32->parameters()[i].name;
  }
}

TEST(Llama, Bfloat16OfEachFamilyFollowsFloat32) {
  for (const char* type : {"mistral", "qwen2", "qwen3"}) {
    SCOPED_TRACE(type);
    const Case c{.heads = 9,
                 .kv_heads = 3,
                 .head_dim = 32,
                 .tokens = 96,
                 .attention = S2(24),
                 .recompute = Recompute::kFull,
                 .model_type = type,
                 .window = 20};
    ExpectBfloat16FollowsFloat32(c);
  }
}

TEST(Llama, Bfloat16GradientsFollowFloat32) {
  const Case c{.heads = 9,
               .kv_heads = 3,
               .head_dim = 32,
               .tokens = 96,
               .attention = S2(24),
               .recompute = Recompute::kSelective};
  ExpectBfloat16FollowsFloat32(c);
}

// A job may resume on a machine with less memory: what is computed again is what was kept.
TEST(Llama, EveryRecomputeSettingGivesTheSameBits) {
  for (const auto& [dtype, tile, base] :
       {std::tuple(at::kFloat, int64_t{100}, BaseFormat::kCompute),
        {at::kBFloat16, 100, BaseFormat::kCompute},
        {at::kFloat, 33, BaseFormat::kCompute},
        {at::kBFloat16, 33, BaseFormat::kCompute},
        {at::kBFloat16, 33, BaseFormat::kFp8},
        {at::kFloat, 33, BaseFormat::kNf4},
        {at::kBFloat16, 33, BaseFormat::kNf4}}) {
    Case c{.heads = 9,
           .kv_heads = 3,
           .head_dim = 16,
           .tokens = 77,
           .attention = S2(20),
           .lora = kWithDropout,
           .tile = tile,
           .base = base};
    const Row row = MakeRow(c, 6);
    const auto kept = MakeModel(c, 6, dtype);
    const double loss = *kept->ForwardBackward(row, c.attention, 1.0);
    for (const auto recompute : {Recompute::kSelective, Recompute::kFull}) {
      c.recompute = recompute;
      const auto model = MakeModel(c, 6, dtype);
      EXPECT_EQ(*model->ForwardBackward(row, c.attention, 1.0), loss);
      for (size_t i = 0; i < kept->parameters().size(); ++i) {
        EXPECT_TRUE(at::equal(kept->parameters()[i].grad, model->parameters()[i].grad))
            << kept->parameters()[i].name;
      }
    }
  }
}

// Gives what a model computes with as another model's weights.
class WeightsOf : public WeightSource {
 public:
  explicit WeightsOf(const Llama& model) : model_(model) {}
  absl::StatusOr<at::Tensor> Get(const std::string& name) override { return model_.Weight(name); }

 private:
  const Llama& model_;
};

TEST(Llama, AQuantizedBaseTrainsAsItsDequantizedWeights) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Case c{.attention = S2(8), .lora = kAllLinear};
    const LlamaConfig config = SmallConfig(c);
    ModelOptions options;
    options.dtype = dtype;
    options.lora = c.lora;
    options.train_embedding = options.train_norm = true;
    options.base = BaseFormat::kNf4;
    RandomWeights random(4, config);
    const auto quantized = *Llama::Create(config, random, options);
    const at::Tensor given = *random.Get("model.layers.0.mlp.up_proj.weight"),
                     kept = *quantized->Weight("model.layers.0.mlp.up_proj.weight");
    const double error = (kept.to(at::kFloat) - given).abs().max().item<double>();
    EXPECT_GT(error, 0);
    EXPECT_LT(error, 0.2 * given.abs().max().item<double>());

    WeightsOf dequantized(*quantized);
    options.base = BaseFormat::kCompute;
    const auto dense = *Llama::Create(config, dequantized, options);
    const Row row = MakeRow(c, 4);
    for (int step = 0; step < 2; ++step) {  // LoRA's B is zero in the first
      EXPECT_EQ(*quantized->ForwardBackward(row, c.attention, 1.0),
                *dense->ForwardBackward(row, c.attention, 1.0));
      ASSERT_EQ(quantized->parameters().size(), dense->parameters().size());
      for (size_t i = 0; i < dense->parameters().size(); ++i) {
        Parameter &a = quantized->parameters()[i], &b = dense->parameters()[i];
        EXPECT_TRUE(at::equal(a.grad, b.grad)) << a.name;
        for (Parameter* p : {&a, &b}) p->master.add_(p->grad, -0.1);
      }
      for (Llama* model : {quantized.get(), dense.get()}) {
        model->CastMastersToCompute();
        model->ZeroGrad();
      }
    }
  }
}

// Claim: rounding both sides of the base's products to fp8 leaves loss and gradients near those of
// the same weights in bf16, and all of them go through it.
TEST(Llama, AnFp8BaseTrainsNearItsWeights) {
  Case c{.heads = 9,
         .kv_heads = 3,
         .head_dim = 32,
         .tokens = 96,
         .attention = S2(24),
         .recompute = Recompute::kFull,
         .lora = kAllLinear};
  const Row row = MakeRow(c, 8);
  const auto bf16 = MakeModel(c, 8, at::kBFloat16);
  c.base = BaseFormat::kFp8;
  const auto fp8 = MakeModel(c, 8, at::kBFloat16);
  const double want = *bf16->ForwardBackward(row, c.attention, 1.0),
               got = *fp8->ForwardBackward(row, c.attention, 1.0);
  EXPECT_NEAR(got, want, 0.02 * want);
  EXPECT_NE(got, want);
  for (size_t i = 0; i < bf16->parameters().size(); ++i) {
    const at::Tensor a = fp8->parameters()[i].grad.flatten(),
                     b = bf16->parameters()[i].grad.flatten();
    EXPECT_GT((a.dot(b) / (a.norm() * b.norm())).item<double>(), 0.95)
        << bf16->parameters()[i].name;
    EXPECT_FALSE(at::equal(a, b)) << bf16->parameters()[i].name;
  }
  EXPECT_EQ(*fp8->Nll(row, c.attention), got);

  ModelOptions options;
  options.base = BaseFormat::kFp8;
  options.dtype = at::kFloat;
  RandomWeights weights(8, SmallConfig(c));
  EXPECT_THAT(std::string(Llama::Create(SmallConfig(c), weights, options).status().message()),
              testing::HasSubstr("base: expected fp8 beside a compute type of bfloat16"));
  options.dtype = at::kBFloat16;
  options.train_all = true;
  EXPECT_THAT(std::string(Llama::Create(SmallConfig(c), weights, options).status().message()),
              testing::HasSubstr("where every weight is trained"));
}

// Claim: no token changes an earlier position's output, at any depth, with wrap: split.
TEST(Llama, SplitNeverLooksAhead) {
  const Case c{.heads = 9, .kv_heads = 3, .tokens = 37, .attention = S2(9)};
  const auto model = MakeModel(c, 11);
  const Row row = MakeRow(c, 11);
  const at::Tensor before = *model->Logits(row.tokens, c.attention);
  for (int64_t j : {1, 8, 20, 36}) {
    at::Tensor changed = row.tokens.clone();
    changed[j] = (changed[j].item<int64_t>() + 1) % 61;
    const at::Tensor after = *model->Logits(changed, c.attention);
    EXPECT_TRUE(at::equal(before.narrow(0, 0, j), after.narrow(0, 0, j))) << j;
    EXPECT_FALSE(at::equal(before[j], after[j])) << j;
  }
}

TEST(Llama, LoraStartsAtTheBaseModel) {
  const Case c{.attention = S2(8)};
  const LlamaConfig config = SmallConfig(c);
  RandomWeights weights(3, config);
  ModelOptions plain, lora;
  plain.dtype = lora.dtype = at::kFloat;
  lora.lora = c.lora;
  const auto a = *Llama::Create(config, weights, plain), b = *Llama::Create(config, weights, lora);
  const Row row = MakeRow(c, 3);
  EXPECT_TRUE(at::equal(*a->Logits(row.tokens, c.attention), *b->Logits(row.tokens, c.attention)));
}

TEST(Llama, RowsOfDifferentLengthsShareBuffers) {
  Case c{.tokens = 40, .attention = S2(8), .recompute = Recompute::kSelective};
  const auto model = MakeModel(c, 9);
  const Row longer = MakeRow(c, 9);
  c.tokens = 13;
  const Row shorter = MakeRow(c, 10);
  const double alone = *MakeModel(c, 9)->ForwardBackward(shorter, c.attention, 1.0);
  ASSERT_TRUE(model->ForwardBackward(longer, c.attention, 1.0).ok());
  EXPECT_EQ(*model->ForwardBackward(shorter, c.attention, 1.0), alone);
  ASSERT_TRUE(model->Nll(longer, c.attention).ok());
  EXPECT_EQ(*model->ForwardBackward(shorter, c.attention, 1.0), alone);
}

TEST(Llama, RefusesMalformedInput) {
  const Case c{.attention = S2(8)};
  const auto model = MakeModel(c, 1);
  Row row = MakeRow(c, 1);
  row.tokens[3] = 61;
  EXPECT_THAT(std::string(model->ForwardBackward(row, c.attention, 1).status().message()),
              testing::HasSubstr("position 3"));
  row = MakeRow(c, 1);
  row.labels = row.labels.narrow(0, 0, 5);
  EXPECT_EQ(model->ForwardBackward(row, c.attention, 1).status().code(),
            absl::StatusCode::kInvalidArgument);
  row = MakeRow(c, 1);
  row.documents = {{0, 5}, {6, 32}};
  EXPECT_EQ(model->Nll(row, c.attention).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Nll(MakeRow(c, 1), S2(0)).status().code(), absl::StatusCode::kInvalidArgument);
  const auto windowed = MakeModel({.model_type = "mistral", .window = 6}, 1);
  EXPECT_THAT(std::string(windowed->Nll(MakeRow(c, 1), S2(8, WrapKind::kRoll)).status().message()),
              testing::HasSubstr("sliding_window of 6"));
  ModelOptions options;
  options.lora = {8, 16, 0, {"qproj"}, false};
  RandomWeights weights(1, SmallConfig(c));
  EXPECT_THAT(std::string(Llama::Create(SmallConfig(c), weights, options).status().message()),
              testing::HasSubstr("qproj"));
}

}  // namespace
}  // namespace ll
