// The KV cache against the model without one: the same logits however the tokens come in.
#include "model/generation/generator.h"

#include <algorithm>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using testing::ElementsAreArray;

struct Case {
  std::string name;
  std::string model_type = "llama";
  int64_t heads = 4, kv_heads = 2, head_dim = 8, window = 0;
  std::vector<bool> windowed_layers;
  RopeScaling rope;
  bool tied = true;
  int lora_rank = 0;
  BaseFormat base = BaseFormat::kCompute;
  at::ScalarType dtype = at::kFloat;
};

LlamaConfig ConfigOf(const Case& c) {
  LlamaConfig config;
  config.vocab_size = 61;
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.num_hidden_layers = 3;
  config.num_attention_heads = c.heads;
  config.num_key_value_heads = c.kv_heads;
  config.head_dim = c.head_dim;
  config.max_position_embeddings = 64;
  config.initializer_range = 0.2;
  config.tie_word_embeddings = c.tied;
  config.model_type = c.model_type;
  config.sliding_window = c.window;
  config.windowed_layers = c.windowed_layers;
  config.rope = c.rope;
  return config;
}

std::unique_ptr<Llama> MakeModel(const Case& c, uint64_t seed) {
  ModelOptions options;
  options.dtype = c.dtype;
  options.trainable = false;
  options.base = c.base;
  options.train_norm = true;  // only so that norms can be moved away from one
  if (c.lora_rank > 0) {
    options.lora = {c.lora_rank, 8, 0, {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"}};
  }
  options.seed = seed;
  const LlamaConfig config = ConfigOf(c);
  RandomWeights weights(seed, config);
  auto model = Llama::Create(config, weights, options);
  if (!model.ok()) ADD_FAILURE() << model.status();
  at::manual_seed(seed);
  for (Parameter& p : (*model)->parameters()) p.master.add_(at::randn(p.master.sizes()), 0.1);
  (*model)->CastMastersToCompute();
  return *std::move(model);
}

std::vector<int32_t> RandomIds(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random() % 61));
  return ids;
}

at::Tensor WholeRow(Llama& model, const std::vector<int32_t>& ids) {
  const auto logits = model.Logits(at::tensor(ids, at::kInt), AttentionSpec());
  EXPECT_TRUE(logits.ok()) << logits.status();
  return *logits;
}

// All logits of `ids`, put in as pieces of the given sizes and then one by one.
at::Tensor InPieces(Llama& model, KvCache& cache, absl::Span<const int32_t> ids,
                    const std::vector<int64_t>& sizes) {
  std::vector<at::Tensor> parts;
  size_t at = 0;
  for (size_t i = 0; at < ids.size(); ++i) {
    const size_t n =
        std::min(ids.size() - at, i < sizes.size() ? static_cast<size_t>(sizes[i]) : 1);
    const auto logits = model.Extend(ids.subspan(at, n), cache, LogitsOf::kAll);
    EXPECT_TRUE(logits.ok()) << logits.status();
    parts.push_back(*logits);
    at += n;
  }
  return at::cat(parts);
}

void ExpectNear(const at::Tensor& a, const at::Tensor& b, double tolerance) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance * (1 + b.abs().max().item<double>()));
}

// In fp8 a last bit of bf16 may bring another code, an eighth away.
double ToleranceOf(const Case& c) {
  if (c.base == BaseFormat::kFp8) return 0.15;
  return c.dtype == at::kFloat ? 1e-5 : 4e-2;
}

class CacheParity : public testing::TestWithParam<Case> {};

TEST_P(CacheParity, LogitsAreThoseOfTheWholeRow) {
  const Case& c = GetParam();
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  const auto model = MakeModel(c, seed);
  const std::vector<int32_t> ids = RandomIds(57, seed);
  const at::Tensor expected = WholeRow(*model, ids);
  for (const std::vector<int64_t>& sizes :
       std::vector<std::vector<int64_t>>{{57}, {1}, {20, 1, 1, 17, 2}, {50}}) {
    KvCache cache(model->config(), c.dtype);
    ExpectNear(InPieces(*model, cache, ids, sizes), expected, ToleranceOf(c));
    EXPECT_EQ(cache.tokens(), 57);
  }
}

TEST_P(CacheParity, TruncatedCacheGoesOnAsAFreshOne) {
  const Case& c = GetParam();
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  const auto model = MakeModel(c, seed);
  std::vector<int32_t> ids = RandomIds(40, seed);
  KvCache cache(model->config(), c.dtype);
  InPieces(*model, cache, ids, {40});
  cache.Truncate(13);
  for (size_t i = 13; i < ids.size(); ++i) ids[i] = (ids[i] + 1) % 61;
  const at::Tensor after = InPieces(*model, cache, absl::MakeConstSpan(ids).subspan(13), {9, 1, 8});
  ExpectNear(after, WholeRow(*model, ids).narrow(0, 13, 27), ToleranceOf(c));
}

RopeScaling Scaling(RopeScaling::Type type) {
  RopeScaling rope;
  rope.type = type;
  rope.factor = 4;
  rope.original_max_position_embeddings = 16;
  return rope;
}

INSTANTIATE_TEST_SUITE_P(
    Models, CacheParity,
    testing::Values(Case{"gqa"}, Case{"mha", "llama", 4, 4}, Case{"nine_heads", "llama", 9, 3},
                    Case{.name = "untied", .tied = false}, Case{"qwen2_bias", "qwen2"},
                    Case{"qwen3_norms", "qwen3"}, Case{"mistral_window", "mistral", 4, 2, 8, 11},
                    Case{"some_windows", "qwen2", 4, 2, 8, 7, {false, true, false}},
                    Case{.name = "odd_head", .head_dim = 6},
                    Case{.name = "linear", .rope = Scaling(RopeScaling::Type::kLinear)},
                    Case{.name = "ntk", .rope = Scaling(RopeScaling::Type::kNtk)},
                    Case{.name = "yarn", .rope = Scaling(RopeScaling::Type::kYarn)},
                    Case{.name = "llama3", .rope = Scaling(RopeScaling::Type::kLlama3)},
                    // Within the original context, where nothing depends on the length.
                    Case{.name = "dynamic", .rope = Scaling(RopeScaling::Type::kDynamicNtk)},
                    Case{.name = "lora", .lora_rank = 4},
                    Case{.name = "nf4", .base = BaseFormat::kNf4},
                    Case{.name = "lora_beside_nf4", .lora_rank = 4, .base = BaseFormat::kNf4},
                    Case{.name = "lora_beside_fp8",
                         .lora_rank = 4,
                         .base = BaseFormat::kFp8,
                         .dtype = at::kBFloat16},
                    Case{.name = "bf16", .head_dim = 16, .dtype = at::kBFloat16},
                    Case{.name = "bf16_odd_head", .head_dim = 10, .dtype = at::kBFloat16},
                    Case{"bf16_window",
                         "mistral",
                         4,
                         2,
                         16,
                         11,
                         {},
                         {},
                         true,
                         0,
                         BaseFormat::kCompute,
                         at::kBFloat16}),
    [](const auto& info) { return info.param.name; });

TEST(Extend, LongPromptGoesThroughInPieces) {
  const auto model = MakeModel(Case{"gqa"}, 3);
  const std::vector<int32_t> ids = RandomIds(2 * Llama::kExtendTokens + 7, 3);
  KvCache cache(model->config(), at::kFloat);
  const auto last = model->Extend(ids, cache);
  ASSERT_TRUE(last.ok()) << last.status();
  EXPECT_EQ(cache.tokens(), static_cast<int64_t>(ids.size()));
  const at::Tensor whole = WholeRow(*model, ids);
  ExpectNear(*last, whole.narrow(0, whole.size(0) - 1, 1), 1e-5);
}

TEST(Extend, DynamicNtkRotatesForTheWholePrompt) {
  Case c{"dynamic"};
  c.rope = Scaling(RopeScaling::Type::kDynamicNtk);
  const auto model = MakeModel(c, 4);
  const std::vector<int32_t> ids = RandomIds(Llama::kExtendTokens + 100, 4);
  KvCache cache(model->config(), at::kFloat);
  const auto all = model->Extend(ids, cache, LogitsOf::kAll);
  ASSERT_TRUE(all.ok()) << all.status();
  ExpectNear(*all, WholeRow(*model, ids), 1e-5);
}

TEST(Extend, RefusesWhatIsNoToken) {
  const auto model = MakeModel(Case{"gqa"}, 5);
  KvCache cache(model->config(), at::kFloat);
  EXPECT_EQ(model->Extend({}, cache).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Extend({1, 61}, cache).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(cache.tokens(), 0);
}

TEST(Extend, LeavesTrainingAsItWas) {
  const Case c{"gqa"};
  ModelOptions options;
  options.dtype = at::kFloat;
  options.train_all = true;
  const LlamaConfig config = ConfigOf(c);
  RandomWeights weights(9, config);
  const auto model = *Llama::Create(config, weights, options);
  Row row;
  row.tokens = row.labels = at::tensor(RandomIds(30, 9), at::kInt);
  const double before = *model->ForwardBackward(row, AttentionSpec(), 1);
  const at::Tensor gradient = model->parameters()[0].grad.clone();
  KvCache cache(config, at::kFloat);
  ASSERT_TRUE(model->Extend(RandomIds(80, 9), cache).ok());
  model->ZeroGrad();
  EXPECT_EQ(*model->ForwardBackward(row, AttentionSpec(), 1), before);
  EXPECT_TRUE(at::equal(model->parameters()[0].grad, gradient));
}

// What generation means, without a cache.
std::vector<int32_t> GreedyByWholeRows(Llama& model, std::vector<int32_t> ids, int64_t count) {
  std::vector<int32_t> out;
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor logits = WholeRow(model, ids);
    out.push_back(static_cast<int32_t>(logits[logits.size(0) - 1].argmax().item<int64_t>()));
    ids.push_back(out.back());
  }
  return out;
}

TEST(Generator, GreedyIsTheModelsArgmax) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  const auto model = MakeModel(Case{"gqa"}, seed);
  const std::vector<int32_t> prompt = RandomIds(11, seed);
  Generator generator(*model);
  std::vector<int32_t> streamed;
  const auto done = generator.Complete(prompt, {.max_new_tokens = 12}, [&](int32_t id) {
    streamed.push_back(id);
    return true;
  });
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->ids, GreedyByWholeRows(*model, prompt, 12));
  EXPECT_EQ(streamed, done->ids);
  EXPECT_EQ(done->finish, FinishReason::kLength);
  EXPECT_EQ(done->prompt_tokens, 11);
  EXPECT_EQ(done->reused_tokens, 0);
}

TEST(Generator, ReusesTheLongestCommonPrefix) {
  const auto model = MakeModel(Case{"gqa"}, 21);
  Generator generator(*model);
  std::vector<int32_t> prompt = RandomIds(30, 21);
  ASSERT_TRUE(generator.Complete(prompt, {.max_new_tokens = 5}).ok());
  // The next turn: all of it, its answer, and more.
  std::vector<int32_t> next(generator.cached_ids().begin(), generator.cached_ids().end());
  EXPECT_EQ(next.size(), 34u);  // the last new id has not been through the model
  next.insert(next.end(), {7, 8, 9});
  auto done = generator.Complete(next, {.max_new_tokens = 4});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->reused_tokens, 34);
  EXPECT_EQ(done->ids, GreedyByWholeRows(*model, next, 4));
  // Another question about the same text.
  prompt[20] = (prompt[20] + 1) % 61;
  done = generator.Complete(prompt, {.max_new_tokens = 4});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->reused_tokens, 20);
  EXPECT_EQ(done->ids, GreedyByWholeRows(*model, prompt, 4));
  // The same prompt again: its last id is computed for the logits.
  done = generator.Complete(prompt, {.max_new_tokens = 4});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->reused_tokens, 29);
  EXPECT_EQ(done->ids, GreedyByWholeRows(*model, prompt, 4));
  generator.Clear();
  EXPECT_EQ(generator.Complete(prompt, {.max_new_tokens = 4})->reused_tokens, 0);
}

TEST(Generator, DynamicNtkBeyondTheOriginalContextReusesNothing) {
  Case c{"dynamic"};
  c.rope = Scaling(RopeScaling::Type::kDynamicNtk);
  const auto model = MakeModel(c, 22);
  Generator generator(*model);
  std::vector<int32_t> prompt = RandomIds(70, 22);
  ASSERT_TRUE(generator.Complete(prompt, {.max_new_tokens = 2}).ok());
  EXPECT_EQ(generator.Complete(prompt, {.max_new_tokens = 2})->reused_tokens, 0);
  prompt.resize(30);
  EXPECT_EQ(generator.Complete(prompt, {.max_new_tokens = 2})->reused_tokens, 0);
  EXPECT_EQ(generator.Complete(prompt, {.max_new_tokens = 2})->reused_tokens, 29);
}

TEST(Generator, StopsAtAnEosAndWhereTheCallerSays) {
  const auto model = MakeModel(Case{"gqa"}, 23);
  const std::vector<int32_t> prompt = RandomIds(9, 23);
  const std::vector<int32_t> free = GreedyByWholeRows(*model, prompt, 8);
  int32_t never = 0;
  while (std::find(free.begin(), free.end(), never) != free.end()) ++never;
  Generator generator(*model);
  auto done = generator.Complete(prompt, {.max_new_tokens = 8, .eos_ids = {never, free[3]}});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->finish, FinishReason::kEos);
  const size_t first = std::find(free.begin(), free.end(), free[3]) - free.begin();
  EXPECT_THAT(done->ids, ElementsAreArray(free.begin(), free.begin() + first + 1));
  int seen = 0;
  done = generator.Complete(prompt, {.max_new_tokens = 8}, [&](int32_t) { return ++seen < 2; });
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->finish, FinishReason::kStopped);
  EXPECT_THAT(done->ids, ElementsAreArray(free.begin(), free.begin() + 2));
}

TEST(Generator, SamplingIsReproducibleBySeed) {
  const auto model = MakeModel(Case{"gqa"}, 24);
  const std::vector<int32_t> prompt = RandomIds(9, 24);
  const auto sample = [&](uint64_t seed) {
    Generator generator(*model);
    return generator
        .Complete(prompt, {.sampling = {.temperature = 1, .top_p = 0.95, .seed = seed},
                           .max_new_tokens = 24})
        ->ids;
  };
  EXPECT_EQ(sample(1), sample(1));
  EXPECT_NE(sample(1), sample(2));
}

TEST(Generator, NamesWhatIsWrong) {
  const auto model = MakeModel(Case{"gqa"}, 25);
  Generator generator(*model);
  EXPECT_THAT(std::string(generator.Complete({}, {}).status().message()),
              testing::HasSubstr("prompt"));
  EXPECT_THAT(std::string(generator.Complete({1}, {.max_new_tokens = 0}).status().message()),
              testing::HasSubstr("max_new_tokens"));
  EXPECT_THAT(std::string(generator.Complete({1}, {.sampling = {.top_p = 2}}).status().message()),
              testing::HasSubstr("top_p"));
}

}  // namespace
}  // namespace ll
