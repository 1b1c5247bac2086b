#include "model/plan/config.h"

#include <cmath>
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

TEST(ConfigTest, PadTokenCountsFromTheEndWhereItIsNegative) {
  json j = Llama();
  for (const auto& [given, read] : std::vector<std::pair<json, int64_t>>{
           {0, 0}, {31999, 31999}, {-1, 31999}, {32000, -1}, {-32001, -1}, {nullptr, -1}}) {
    j["pad_token_id"] = given;
    EXPECT_EQ(Parse(j).pad_token_id, read) << given;
  }
  j.erase("pad_token_id");
  EXPECT_EQ(Parse(j).pad_token_id, -1);
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

TEST(ConfigTest, ScalingThatImpliesTheOriginalContext) {
  json yarn = Llama(32768), dynamic = Llama(4096), both = Llama(16384);
  yarn["rope_scaling"] = {{"type", "yarn"}, {"factor", 4.0}};
  EXPECT_EQ(Parse(yarn).OriginalContext(), 32768);
  EXPECT_EQ(Parse(yarn).Reach(), 131072);
  dynamic["rope_scaling"] = {
      {"type", "dynamic"}, {"factor", 4.0}, {"original_max_position_embeddings", 2048}};
  EXPECT_EQ(Parse(dynamic).OriginalContext(), 4096);  // as transformers computes it
  both["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  both["rope_parameters"] = {{"rope_type", "linear"}, {"factor", 2.0}, {"rope_theta", 7.0}};
  EXPECT_EQ(Parse(both).rope.factor, 4.0);  // transformers takes rope_scaling where both are there
  EXPECT_EQ(Parse(both).rope_theta, 10000);
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

TEST(ConfigTest, AScalingThatDoesNotSayWhatItBeginsAtBeginsAtTheModelsContext) {
  for (const char* type : {"yarn", "llama3", "dynamic"}) {
    json j = Llama(16384);
    j["rope_scaling"] = {{"rope_type", type}, {"factor", 4.0}};
    EXPECT_EQ(Parse(j).rope.original_max_position_embeddings, 16384) << type;
    j["rope_scaling"]["original_max_position_embeddings"] = nullptr;
    EXPECT_EQ(Parse(j).OriginalContext(), 16384) << type;
  }
}

TEST(ConfigTest, TwoOriginalContextsThatDifferMeanOneThingToNobody) {
  json j = Llama(16384);
  j["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 4096}};
  j["original_max_position_embeddings"] = 4096;
  EXPECT_EQ(Parse(j).OriginalContext(), 4096);
  j["original_max_position_embeddings"] = 2048;
  EXPECT_THAT(ParseLlamaConfig(j.dump()),
              StatusIs(kInvalid,
                       "original_max_position_embeddings: expected rope_scaling's 4096, found "
                       "2048"));
  j["rope_scaling"]["rope_type"] = "linear";  // no reader looks at either
  EXPECT_EQ(Parse(j).OriginalContext(), 4096);
}

TEST(ConfigTest, RefusesWhatItCannotRun) {
  struct Case {
    const char* field;
    json value;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"model_type", "gemma2",
            "config.json model_type: expected one of llama, mistral, qwen2, qwen3, found gemma2"},
           {"model_type", nullptr, "config.json model_type: expected one of llama"},
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
           {"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}, "rope_scaling factor"},
           {"rope_scaling", {{"type", "yarn"}, {"factor", 2}, {"truncate", 1}}, "truncate"},
           {"rope_parameters",
            {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}},
            "rope_scaling partial_rotary_factor: expected 1, found 0.5"},
           {"rope_parameters",
            {{"full_attention", {{"rope_type", "default"}}}},
            "rope_scaling: expected one for all layers"},
           {"layer_types", {"full_attention"}, "layer_types: expected one text for each layer"}}) {
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

json Family(const std::string& type) {
  json j = Llama(32768);
  j["model_type"] = type;
  j["num_key_value_heads"] = 8;
  return j;
}

TEST(ConfigTest, ReadsEachFamily) {
  EXPECT_TRUE(Parse(Family("qwen2")).HasQkvBias());
  EXPECT_FALSE(Parse(Family("qwen2")).HasQkNorm());
  EXPECT_TRUE(Parse(Family("qwen3")).HasQkNorm());
  EXPECT_FALSE(Parse(Family("mistral")).HasQkvBias() || Parse(Family("mistral")).HasQkNorm());
  json no_head_dim = Family("qwen3");
  no_head_dim["hidden_size"] = 5120;  // Qwen3's heads are 128 wide whatever the hidden size
  EXPECT_EQ(Parse(no_head_dim).head_dim, 128);
  for (const char* field : {"num_key_value_heads", "max_position_embeddings"}) {
    json j = Family("mistral");
    j.erase(field);  // 8 and 131072 to transformers: nobody means that by leaving it out
    EXPECT_THAT(ParseLlamaConfig(j.dump()), StatusIs(kInvalid, field));
  }
}

TEST(ConfigTest, WritesTheFamily) {
  for (const auto& [type, architecture] : {std::pair{"llama", "LlamaForCausalLM"},
                                           {"mistral", "MistralForCausalLM"},
                                           {"qwen2", "Qwen2ForCausalLM"},
                                           {"qwen3", "Qwen3ForCausalLM"}}) {
    const json written = LlamaConfigToJson(Parse(Family(type)));
    EXPECT_EQ(written["architectures"], json::array({architecture}));
    EXPECT_EQ(written["model_type"], type);
    EXPECT_EQ(LlamaConfigToJson(Parse(written)), written);
  }
}

TEST(ConfigTest, ReadsSlidingWindows) {
  json mistral = Family("mistral");
  EXPECT_EQ(Parse(mistral).WindowOf(0), 4096);  // what transformers assumes of a silent file
  mistral["sliding_window"] = 1000;
  EXPECT_EQ(Parse(mistral).WindowOf(31), 1000);
  mistral["sliding_window"] = nullptr;
  EXPECT_EQ(Parse(mistral).WindowOf(0), 0);
  EXPECT_TRUE(LlamaConfigToJson(Parse(mistral)).at("sliding_window").is_null());
  // With layer_types transformers takes it for a Ministral, whose layers differ.
  mistral["sliding_window"] = 1000;
  mistral["layer_types"] =
      std::vector<std::string>(Parse(mistral).num_hidden_layers, "full_attention");
  EXPECT_EQ(Parse(mistral).WindowOf(0), 0);
  mistral["layer_types"][1] = "sliding_attention";
  EXPECT_EQ(Parse(mistral).WindowOf(0), 0);
  EXPECT_EQ(Parse(mistral).WindowOf(1), 1000);

  json qwen = Family("qwen2");
  qwen["sliding_window"] = 2000;
  EXPECT_EQ(Parse(qwen).WindowOf(31), 0);  // off unless use_sliding_window
  qwen["use_sliding_window"] = true;
  EXPECT_EQ(Parse(qwen).WindowOf(27), 0);  // max_window_layers is 28 in a silent file
  EXPECT_EQ(Parse(qwen).WindowOf(28), 2000);
  qwen["max_window_layers"] = 0;
  EXPECT_EQ(Parse(qwen).WindowOf(0), 2000);
  qwen["layer_types"] = json::array();
  for (int l = 0; l < 32; ++l)
    qwen["layer_types"].push_back(l % 2 == 0 ? "full_attention" : "sliding_attention");
  EXPECT_EQ(Parse(qwen).WindowOf(0), 0);
  EXPECT_EQ(Parse(qwen).WindowOf(1), 2000);
  const LlamaConfig back = Parse(LlamaConfigToJson(Parse(qwen)));
  EXPECT_EQ(back.windowed_layers, Parse(qwen).windowed_layers);
  qwen["layer_types"][3] = "chunked_attention";
  EXPECT_THAT(ParseLlamaConfig(qwen.dump()), StatusIs(kInvalid, "layer_types: expected full_"));
}

TEST(ConfigTest, ParameterCountsOfPublishedModels) {
  for (const auto& [name, count] : {std::pair{"llama-3.1-8b", 8030261248},
                                    {"llama-3.2-1b", 1235814400},
                                    {"llama-3.2-3b", 3212749824},
                                    {"mistral-7b", 7248023552},
                                    {"qwen2.5-7b", 7615616512},
                                    {"qwen3-8b", 8190735360}}) {
    EXPECT_EQ(BuiltInModel(name)->ParameterCount(), count) << name;
  }
}

TEST(ConfigTest, BuiltInModelsSurviveTheirOwnFile) {
  for (const std::string& name : BuiltInModelNames()) {
    const LlamaConfig c = *BuiltInModel(name), back = Parse(LlamaConfigToJson(c));
    EXPECT_EQ(back.ParameterCount(), c.ParameterCount()) << name;
    EXPECT_EQ(back.rope, c.rope) << name;
    EXPECT_EQ(back.rope_theta, c.rope_theta) << name;
    EXPECT_EQ(back.WindowOf(0), 0) << name;
    EXPECT_EQ(back.OriginalContext(), c.OriginalContext()) << name;
  }
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

constexpr Type kEveryType[] = {Type::kLinear, Type::kNtk, Type::kDynamicNtk, Type::kYarn,
                               Type::kLlama3};

TEST(ExtendContextTest, ExtendingTwiceEqualsOnce) {
  LlamaConfig c = Parse(Llama());
  for (Type type : kEveryType) {
    LL_ASSERT_OK_AND_ASSIGN(LlamaConfig once, ExtendContext(c, 32768, type));
    LL_ASSERT_OK_AND_ASSIGN(LlamaConfig first, ExtendContext(c, 8192, type));
    LL_ASSERT_OK_AND_ASSIGN(LlamaConfig twice,
                            ExtendContext(Parse(LlamaConfigToJson(first)), 32768, type));
    EXPECT_EQ(once.rope, twice.rope);
    EXPECT_EQ(once.rope.factor, 8);
    EXPECT_DOUBLE_EQ(once.rope_theta, twice.rope_theta);
    // Dynamic NTK counts from max_position_embeddings, which therefore stays.
    EXPECT_EQ(twice.max_position_embeddings, type == Type::kDynamicNtk ? 4096 : 32768);
    EXPECT_EQ(twice.Reach(), 32768);
    EXPECT_EQ(twice.OriginalContext(), 4096);
    LL_ASSERT_OK_AND_ASSIGN(LlamaConfig within, ExtendContext(twice, 20000, type));
    EXPECT_EQ(within.rope, twice.rope);
  }
}

TEST(ExtendContextTest, WrittenConfigReadsBackForEveryType) {
  for (Type type : kEveryType) {
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
  LL_ASSERT_OK_AND_ASSIGN(LlamaConfig ntk, ExtendContext(c, 8192, Type::kNtk));
  EXPECT_THAT(ExtendContext(ntk, 16384, Type::kLlama3), StatusIs(kInvalid, "use rope: ntk"));
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
