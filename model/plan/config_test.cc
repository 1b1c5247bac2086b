#include "model/plan/config.h"

#include <random>

#include "base/status_matchers.h"
#include "model/plan/models.h"

namespace ll {
namespace {

using nlohmann::json;
using Type = RopeScaling::Type;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

json Llama(int64_t context = 4096) {
  return {{"model_type", "llama"},
          {"vocab_size", 32000},
          {"hidden_size", 4096},
          {"intermediate_size", 11008},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 32},
          {"max_position_embeddings", context},
          {"rms_norm_eps", 1e-5},
          {"hidden_act", "silu"},
          {"torch_dtype", "float16"},
          {"pad_token_id", 0}};
}
LlamaConfig Parse(const json& j) {
  auto c = ParseLlamaConfig(j.dump());
  EXPECT_TRUE(c.ok()) << c.status();
  return c.ok() ? *c : LlamaConfig();
}
double FactorAt(const LlamaConfig& c, int64_t target, int64_t original = 0) {
  auto e = ExtendContext(c, target, Type::kLinear, original);
  EXPECT_TRUE(e.ok()) << e.status();
  return e.ok() ? e->rope.factor : -1;
}

TEST(ConfigTest, ReadsLlama2) {
  LlamaConfig c = Parse(Llama());
  EXPECT_EQ(c.num_key_value_heads, 32);
  EXPECT_EQ(c.head_dim, 128);
  EXPECT_EQ(c.dtype, "float16");
  EXPECT_EQ(c.rope.type, Type::kNone);
  EXPECT_EQ(c.ParameterCount(), 6738415616);
}

TEST(ConfigTest, ParameterCountsOfLlama2) {
  EXPECT_EQ(BuiltInModel("7b")->ParameterCount(), 6738415616);
  EXPECT_EQ(BuiltInModel("13b")->ParameterCount(), 13015864320);
  EXPECT_EQ(BuiltInModel("70b")->ParameterCount(), 68976648192);
  EXPECT_FALSE(BuiltInModel("8b").has_value());
}

TEST(ConfigTest, WeightShapesHoldEveryParameter) {
  for (const std::string& name : BuiltInModelNames()) {
    LlamaConfig c = *BuiltInModel(name);
    for (bool tied : {false, true}) {
      c.tie_word_embeddings = tied;
      int64_t total = 0;
      for (const WeightShape& w : WeightShapes(c)) {
        int64_t n = 1;
        for (int64_t size : w.shape) n *= size;
        total += n;
      }
      EXPECT_EQ(total, c.ParameterCount()) << name << tied;
    }
  }
}

TEST(ConfigTest, ReadsBothSpellingsOfScaling) {
  json v4 = Llama(), v5 = Llama(), old = Llama();
  v4["rope_theta"] = 5e5;
  v4["rope_scaling"] = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  v5["rope_parameters"] = v4["rope_scaling"];
  v5["rope_parameters"]["rope_theta"] = 5e5;
  EXPECT_EQ(Parse(v4).rope, Parse(v5).rope);
  EXPECT_EQ(Parse(v4).rope_theta, 5e5);
  EXPECT_EQ(Parse(v5).rope_theta, 5e5);
  EXPECT_EQ(Parse(v4).rope.type, Type::kLlama3);
  EXPECT_EQ(Parse(v4).OriginalContext(), 8192);
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 2}};
  EXPECT_EQ(Parse(old).rope.type, Type::kLinear);
  EXPECT_EQ(Parse(old).rope.factor, 2);
  EXPECT_EQ(Parse(old).OriginalContext(), 2048);
}

TEST(ConfigTest, RefusesWhatItCannotRun) {
  struct Case {
    const char* field;
    json value;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"model_type", "mistral", "config.json model_type: expected llama, found mistral"},
           {"attention_bias", true, "config.json attention_bias: expected false"},
           {"hidden_act", "gelu", "config.json hidden_act: expected"},
           {"num_key_value_heads", 5, "config.json num_key_value_heads: expected a divisor"},
           {"hidden_size", 4097, "config.json hidden_size: expected a multiple"},
           {"hidden_size", "4096", "config.json hidden_size: expected an integer"},
           {"vocab_size", -1, "config.json vocab_size: expected an integer"},
           {"vocab_size", nullptr,
            "config.json vocab_size: expected a positive integer, found nothing"},
           {"head_dim", 127, "config.json head_dim: expected an even"},
           {"rms_norm_eps", 0, "config.json rms_norm_eps: expected a number > 0"},
           {"torch_dtype", "int8", "config.json torch_dtype: expected float32"},
           {"quantization_config", json::object(), "config.json quantization_config"},
           {"rope_scaling", {{"type", "longrope"}, {"factor", 2}}, "config.json rope_scaling"},
           {"rope_scaling",
            {{"type", "linear"}},
            "rope_scaling factor: expected a number, found nothing"},
           {"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}, "rope_scaling factor"}}) {
    json j = Llama();
    j[c.field] = c.value;
    EXPECT_THAT(ParseLlamaConfig(j.dump()), StatusIs(kInvalid, c.message)) << c.field << c.value;
  }
  EXPECT_THAT(ParseLlamaConfig("{"), StatusIs(kInvalid, "config.json: expected a JSON object"));
  EXPECT_THAT(ParseLlamaConfig("[]"), StatusIs(kInvalid, "config.json: expected a JSON object"));
}

TEST(ConfigTest, HostileFilesAreRefusedBeforeTheyAreUsed) {
  json j = Llama();
  for (const char* field : {"hidden_size", "intermediate_size", "num_attention_heads",
                            "num_key_value_heads", "head_dim", "vocab_size"}) {
    j[field] = 1 << 24;  // each is allowed, their product is not
  }
  EXPECT_THAT(ParseLlamaConfig(j.dump()), StatusIs(kInvalid, "parameters in all"));
  j = Llama();
  j["original_max_position_embeddings"] = 1e300;
  EXPECT_THAT(ParseLlamaConfig(j.dump()), StatusIs(kInvalid, "at most 1e9"));
  j = Llama();
  j["rope_theta"] = 1e300;
  EXPECT_THAT(ParseLlamaConfig(j.dump()), StatusIs(kInvalid, "rope_theta: expected at most"));
  j = Llama();
  j["model_type"] = "a\nb" + std::string(100000, 'x');
  const auto c = ParseLlamaConfig(j.dump());
  EXPECT_THAT(c, StatusIs(kInvalid, "found a?bxx"));
  EXPECT_LT(c.status().message().size(), 2000u);
  EXPECT_THAT(ParseLlamaConfig(R"({"model_type": "llama", "model_type": "llama"})"),
              StatusIs(kInvalid, "config.json: model_type: given twice"));
  EXPECT_THAT(ParseLlamaConfig("{\"a\":" + std::string(100000, '[')),
              StatusIs(kInvalid, "at most 64 levels"));
}

TEST(ExtendContextTest, WhatCannotBeWrittenAndReadAgainIsRefused) {
  json j = Llama();
  j["rope_scaling"] = {{"type", "linear"}, {"factor", 1e6}};
  EXPECT_THAT(ExtendContext(Parse(j), 1 << 20, Type::kLinear), StatusIs(kInvalid, "a factor of"));
  j = Llama();
  j["head_dim"] = 2;  // NTK's exponent D / (D - 2)
  EXPECT_THAT(ExtendContext(Parse(j), 32768, Type::kNtk), StatusIs(kInvalid, "a factor of 8"));
}

TEST(ConfigTest, MutatedJsonNeverCrashes) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  json full = Llama();
  full["rope_scaling"] = {
      {"type", "yarn"}, {"factor", 2.0}, {"original_max_position_embeddings", 4096}};
  const std::string base = full.dump();
  for (int i = 0; i < 4000; ++i) {
    std::string text = base;
    for (unsigned n = 1 + random() % 3; n-- > 0;)
      text[random() % text.size()] = "0123456789-.e\"{}[],:ntf"[random() % 23];
    auto c = ParseLlamaConfig(text);
    if (c.ok()) {
      EXPECT_GT(c->ParameterCount(), 0);
      (void)ExtendContext(*c, 100000, Type::kLinear);
    }
  }
}

TEST(ExtendContextTest, FactorsFrom4096) {  // claim 15
  LlamaConfig c = Parse(Llama());
  for (auto [target, factor] : std::vector<std::pair<int64_t, double>>{
           {8192, 2}, {16384, 4}, {18000, 5}, {32768, 8}, {65536, 16}, {100000, 25}}) {
    EXPECT_EQ(FactorAt(c, target), factor) << target;
  }
}

TEST(ExtendContextTest, ComposesWithAnOldFactor) {  // claim 14
  json old = Llama(8192);
  old["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(FactorAt(Parse(old), 16384), 4);
  old["rope_scaling"]["original_max_position_embeddings"] = 4096;
  EXPECT_EQ(FactorAt(Parse(old), 16384), 4);
  EXPECT_EQ(FactorAt(Parse(old), 8192), 2);         // within reach: as it is
  EXPECT_EQ(FactorAt(Parse(old), 16384, 8192), 2);  // the override replaces what the file says
}

TEST(ExtendContextTest, ExtendingTwiceEqualsOnce) {
  LlamaConfig c = Parse(Llama());
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig once, ExtendContext(c, 32768, Type::kLinear));
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig first, ExtendContext(c, 8192, Type::kLinear));
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig twice,
                          ExtendContext(Parse(LlamaConfigToJson(first)), 32768, Type::kLinear));
  EXPECT_EQ(once.rope, twice.rope);
  EXPECT_EQ(twice.max_position_embeddings, 32768);
}

TEST(ExtendContextTest, WrittenConfigReadsBackForEveryType) {
  for (Type type : {Type::kLinear, Type::kNtk, Type::kYarn}) {
    LL_ASSERT_OK_AND_ASSIGN(LlamaConfig c, ExtendContext(Parse(Llama()), 32768, type));
    json written = LlamaConfigToJson(c);
    LlamaConfig back = Parse(written);
    EXPECT_EQ(back.rope, c.rope) << written.dump(2);
    EXPECT_DOUBLE_EQ(back.rope_theta, c.rope_theta);
    EXPECT_EQ(written["pad_token_id"], 0);  // fields it does not model survive
    EXPECT_EQ(written["rope_parameters"]["original_max_position_embeddings"], 4096);
  }
}

TEST(ExtendContextTest, NtkIsWrittenAsALargerTheta) {
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig c, ExtendContext(Parse(Llama()), 32768, Type::kNtk));
  json written = LlamaConfigToJson(c);
  EXPECT_NEAR(written["rope_theta"].get<double>(), 10000 * std::pow(8.0, 128.0 / 126.0), 1e-6);
  EXPECT_EQ(written["rope_parameters"]["rope_type"], "default");
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig again, ExtendContext(Parse(written), 65536, Type::kNtk));
  EXPECT_EQ(again.rope.factor, 16);
  EXPECT_DOUBLE_EQ(again.rope_theta, 10000);
}

TEST(ExtendContextTest, RefusesMixedScalingsAndBadTargets) {
  LlamaConfig c = Parse(Llama());
  EXPECT_THAT(ExtendContext(c, 0, Type::kLinear),
              StatusIs(kInvalid, "context_length: expected a positive"));
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig yarn, ExtendContext(c, 8192, Type::kYarn));
  EXPECT_THAT(ExtendContext(yarn, 16384, Type::kLinear),
              StatusIs(kInvalid, "rope: the model's positions"));
}

TEST(CheckContextLengthTest, RefusesLessThanTheOriginal) {
  LlamaConfig c = Parse(Llama());
  LL_EXPECT_OK(CheckContextLength(c, 4096));
  LL_EXPECT_OK(CheckContextLength(c, 100000));
  EXPECT_THAT(CheckContextLength(c, 2048),
              StatusIs(kInvalid, "context_length: expected at least the model's original"));
  EXPECT_THAT(CheckContextLength(c, -1), StatusIs(kInvalid, "context_length: expected a positive"));
  LL_EXPECT_OK(CheckContextLength(c, 2048, 2048));
}

}  // namespace
}  // namespace ll
