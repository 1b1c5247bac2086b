#include "worker/trainer/checkpoint/adapter_config.h"

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(AdapterConfigTest, ReadsWhatMergingNeeds) {
  LL_ASSERT_OK_AND_ASSIGN(
      const AdapterConfig config,
      ParseAdapterConfig(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 16, "rank_pattern": {},
                             "base_model_name_or_path": "m"})"));
  EXPECT_EQ(config.scale(), 4.0);
  EXPECT_EQ(config.base_model, "m");
  LL_ASSERT_OK_AND_ASSIGN(const AdapterConfig rslora,
                          ParseAdapterConfig(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 16,
                                                 "use_rslora": true})"));
  EXPECT_EQ(rslora.scale(), 8.0);
}

TEST(AdapterConfigTest, ReadsWhatTrainingOnNeeds) {
  const auto parse = [](const std::string& more) {
    return *ParseAdapterConfig(R"({"peft_type": "LORA", "r": 4, "lora_alpha": 16)" + more + "}");
  };
  AdapterConfig config = parse(R"(, "target_modules": ["v_proj", "q_proj"], "lora_dropout": 0.05,
                                   "modules_to_save": ["embed_tokens", "input_layernorm", "norm"])");
  EXPECT_EQ(config.obstacle, "");
  EXPECT_EQ(config.dropout, 0.05);
  EXPECT_THAT(config.target_modules, testing::ElementsAre("q_proj", "v_proj"));
  EXPECT_TRUE(config.trains_embedding && config.trains_norm);
  config = parse(R"(, "target_modules": "all-linear", "modules_to_save": null)");
  EXPECT_EQ(config.obstacle, "");
  EXPECT_EQ(config.target_modules.size(), 7u);
  EXPECT_FALSE(config.trains_embedding || config.trains_norm);
  config = parse(R"(, "target_modules": ["model.layers.0.self_attn.q_proj",
                                         "model.layers.1.self_attn.q_proj",
                                         "model.layers.0.mlp.up_proj"])");
  EXPECT_EQ(config.obstacle, "");
  EXPECT_THAT(config.target_modules, testing::ElementsAre("q_proj", "up_proj"));
  EXPECT_THAT(parse(R"(, "target_modules": ["q_proj", "lm_head"])").obstacle,
              testing::HasSubstr("target_mod"));
  EXPECT_EQ(
      parse(R"(, "target_modules": ["q_proj"], "modules_to_save": ["model.embed_tokens", "lm_head"],
                      "ensure_weight_tying": true)")
          .obstacle,
      "");
  // What can be merged but not trained on says why.
  EXPECT_THAT(parse("").obstacle, testing::HasSubstr("target_modules: expected a list"));
  EXPECT_THAT(parse(R"(, "target_modules": ".*proj")").obstacle, testing::HasSubstr("target_mod"));
  EXPECT_THAT(parse(R"(, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"])").obstacle,
              testing::HasSubstr("modules_to_save: expected the embedding and norms"));
}

TEST(AdapterConfigTest, AnInitialisationThatLeavesTheBaseAloneIsTaken) {
  for (const char* init : {"true", "false", "null", "\"gaussian\"", "\"eva\"", "\"orthogonal\""}) {
    LL_EXPECT_OK(ParseAdapterConfig(absl::StrCat(
        R"({"peft_type": "LORA", "r": 4, "lora_alpha": 16, "init_lora_weights": )", init, "}")));
  }
}

TEST(AdapterConfigTest, ErrorsNameTheMember) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (
      const Case& c : std::vector<Case>{
          {"[]", "expected a JSON object"},
          {"{}", "peft_type: expected LORA, found null"},
          {R"({"peft_type": 7})", "peft_type: expected LORA, found 7"},
          {R"({"peft_type": "LORA", "r": 0, "lora_alpha": 1})", "r: expected an integer from 1"},
          {R"({"peft_type": "LORA", "r": 1e-300, "lora_alpha": 1})", "r: expected an integer"},
          {R"({"peft_type": "LORA", "r": 18446744073709551615, "lora_alpha": 1})", "r: expected"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": "16"})", "lora_alpha: expected a number"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 1e308})", "lora_alpha: expected"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "rank_pattern": {"q": 1}})",
           "rank_pattern: expected nothing, found {\"q\":1}"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_dora": true})", "use_dora"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "alora_invocation_tokens": [1, 7]})",
           "alora_invocation_tokens: expected nothing, found [1,7]"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "layer_replication": [[0, 2], [1, 2]]})",
           "layer_replication"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "kasa_config": {"rank": 2}})",
           "kasa_config"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "init_lora_weights": "pissa"})",
           "init_lora_weights: expected one that leaves the base's weights as they are"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "init_lora_weights": "olora"})",
           "init_lora_weights"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "init_lora_weights": 1})",
           "init_lora_weights"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "all"})",
           "bias: expected none"},
          {R"({"peft_type": "LORA", "r": 8, "lora_alpha": 16, "lora_dropout": 1})",
           "lora_dropout: expected a number from 0"}}) {
    EXPECT_THAT(ParseAdapterConfig(c.text), StatusIs(kInvalid, c.message)) << c.text;
  }
}

}  // namespace
}  // namespace ll
