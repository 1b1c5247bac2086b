#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"
#include "model/spec/job_spec.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

JobSpec Parse(absl::string_view text) {
  auto spec = ParseJobSpec(text);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *spec : JobSpec();
}

TEST(ParseTest, ReadsEveryTypeFromYaml) {
  JobSpec s = Parse(
      "name: nightly  # a comment\nmodel: 7b\ncontext_length: 32768\ngroup_ratio: 0.25\nshuffle: "
      "false\n"
      "target_modules: [q_proj, v_proj]\ntrainable: embed,norm\nlabels: {team: nlp, run: 7}\n"
      "stages: [8192, 16384]\nmax_runtime: 90m\nseed: 7\n");
  EXPECT_EQ(s.name, "nightly");
  EXPECT_EQ(s.model, "7b");
  EXPECT_EQ(s.context_length, 32768);
  EXPECT_EQ(s.group_ratio, 0.25);
  EXPECT_EQ(s.shuffle, false);
  EXPECT_THAT(s.target_modules, ElementsAre("q_proj", "v_proj"));
  EXPECT_THAT(s.trainable, ElementsAre("embed", "norm"));
  EXPECT_EQ(s.labels.at("run"), "7");
  EXPECT_THAT(s.stages, ElementsAre(8192, 16384));
  EXPECT_EQ(s.max_runtime, 5400);
}

TEST(ParseTest, JsonAndYamlGiveTheSameSpec) {
  JobSpec yaml =
      Parse("model: /m\nlearning_rate: 2e-5\nafter: [job-1]\nsft: true\nlabels: {a: b}\n");
  JobSpec json = Parse(
      R"( {"model": "/m", "learning_rate": 2e-5, "after": ["job-1"], "sft": true, "labels": {"a": "b"}})");
  EXPECT_EQ(yaml, json);
  EXPECT_THAT(Differences(yaml, json), IsEmpty());
}

TEST(ParseTest, UnknownKeyNamesItsLineAndTheNearestKey) {
  auto s = ParseJobSpec("model: 7b\ncontext_lenght: 8192\n");
  EXPECT_THAT(
      s, StatusIs(kInvalid, "line 2: context_lenght: unknown key; did you mean context_length?"));
  EXPECT_EQ(ErrorField(s.status()), "context_lenght");
  EXPECT_THAT(ParseJobSpec("zzzzzzzz: 1"), StatusIs(kInvalid, "line 1: zzzzzzzz: unknown key"));
}

TEST(ParseTest, WrongTypesNameFieldExpectedAndFound) {
  EXPECT_THAT(
      ParseJobSpec("context_length: long"),
      StatusIs(kInvalid, "line 1: context_length: expected a positive integer, found \"long\""));
  EXPECT_THAT(ParseJobSpec("context_length: 8192.5"),
              StatusIs(kInvalid, "context_length: expected"));
  EXPECT_THAT(ParseJobSpec("context_length: '8192'"),
              StatusIs(kInvalid, "context_length: expected"));
  EXPECT_THAT(ParseJobSpec("learning_rate: .nan"), StatusIs(kInvalid, "learning_rate: expected"));
  EXPECT_THAT(ParseJobSpec("shuffle: 1"),
              StatusIs(kInvalid, "shuffle: expected true or false, found \"1\""));
  EXPECT_THAT(ParseJobSpec("model: [a]"), StatusIs(kInvalid, "model: expected text, found a list"));
  EXPECT_THAT(ParseJobSpec("after: [[a]]"),
              StatusIs(kInvalid, "after: expected a list of texts, found nested"));
  EXPECT_THAT(ParseJobSpec(R"({"context_length": "8192"})"),
              StatusIs(kInvalid, "context_length: expected"));
}

TEST(ParseTest, RefusesWhatIsNotAMapping) {
  EXPECT_THAT(ParseJobSpec("- a\n- b\n"), StatusIs(kInvalid, "expected a mapping"));
  EXPECT_THAT(ParseJobSpec("model: [unclosed\n"), StatusIs(kInvalid, "not valid YAML"));
  EXPECT_THAT(ParseJobSpec("{\"model\": "), StatusIs(kInvalid, "a syntax error at line 1"));
  EXPECT_THAT(ParseJobSpec("seed: 1\nseed: 2\n"), StatusIs(kInvalid, "seed: given twice"));
  EXPECT_THAT(ParseJobSpec("{\"seed\": 1, \"seed\": 2}"), StatusIs(kInvalid, "seed: given twice"));
  EXPECT_THAT(ParseJobSpec("data: a\ntrain_file: b\n"),
              StatusIs(kInvalid, "train_file: given twice"));
  EXPECT_EQ(Parse(""), JobSpec());
}

// The keys and values of LongQLoRA's two train_args files (llama2-7b-pretrain, vicuna-13b-sft).
std::string LongQloraTrainArgs(const std::string& own) {
  return own +
         "output_dir: output/longqlora\ndeepspeed: train_args/deepspeed/deepspeed_config_s2.json\n"
         "per_device_train_batch_size: 1\ngradient_accumulation_steps: 16\nmax_seq_length: 8192\n"
         "model_max_length: 8192\nlogging_steps: 1\nsave_steps: 100\nsave_total_limit: 3\n"
         "lr_scheduler_type: constant_with_warmup\nwarmup_steps: 20\nlora_rank: 64\n"
         "lora_alpha: 16\nlora_dropout: 0.05\nuse_flash_attn: false\ntarget_modules: null\n"
         "gradient_checkpointing: true\ndisable_tqdm: false\noptim: paged_adamw_32bit\nseed: 42\n"
         "fp16: true\nreport_to: tensorboard\ndataloader_num_workers: 0\nsave_strategy: steps\n"
         "weight_decay: 0\nmax_grad_norm: 0.3\nremove_unused_columns: false\n"
         "train_embedding: false\ntrain_norm: false\n";
}

TEST(ParseTest, LongQlorasPretrainingFileIsTheLongqloraRecipe) {
  std::vector<std::string> notes;
  auto s = ParseJobSpec(
      LongQloraTrainArgs("model_name_or_path: /m\ntrain_file: pretrain.jsonl\nsft: false\n"
                         "max_steps: 1000\nnum_train_epochs: 1\nlearning_rate: 2e-4\n"),
      &notes);
  LL_ASSERT_OK(s);
  EXPECT_EQ(s->model, "/m");
  EXPECT_EQ(s->data, "pretrain.jsonl");
  EXPECT_EQ(s->recompute, "full");
  EXPECT_EQ(s->precision, "bf16");
  EXPECT_THAT(s->trainable, ElementsAre("none"));
  // Nothing that has an effect differs from what the method alone gives.
  LL_ASSERT_OK_AND_ASSIGN(const JobSpec resolved, Resolve(*s));
  LL_ASSERT_OK_AND_ASSIGN(
      const JobSpec preset,
      Resolve(Parse("model: /m\ndata: pretrain.jsonl\nctx: 8192\nmethod: longqlora\n"
                    "precision: bf16\nrecompute: full\n")));
  EXPECT_THAT(Differences(preset, resolved), IsEmpty());
}

TEST(ParseTest, LongQlorasSupervisedFile) {
  auto s =
      ParseJobSpec(LongQloraTrainArgs("model_name_or_path: /v\ntrain_file: sft.jsonl\nsft: true\n"
                                      "num_train_epochs: 1\nlearning_rate: 1e-4\n"));
  LL_ASSERT_OK(s);
  LL_ASSERT_OK_AND_ASSIGN(const JobSpec resolved, Resolve(*s));
  EXPECT_EQ(resolved.sft, true);
  EXPECT_EQ(resolved.method, "longqlora");
  EXPECT_EQ(resolved.learning_rate, 1e-4);
  EXPECT_EQ(resolved.target_modules.size(), 7u);
}

TEST(ParseTest, EveryForeignKeyIsHonouredOrSaysWhyItIsNot) {
  std::vector<std::string> notes;
  LL_ASSERT_OK(ParseJobSpec(LongQloraTrainArgs("num_train_epochs: 1\n"), &notes));
  for (const char* note :
       {"output_dir is ignored: the job's folder is chosen", "deepspeed is ignored: memory",
        "use_flash_attn is ignored:", "disable_tqdm is ignored:", "optim is ignored:",
        "report_to is ignored:", "dataloader_num_workers is ignored:",
        "save_strategy is ignored: save_steps alone decides",
        "remove_unused_columns is ignored:", "fp16 is trained as bf16", "method is longqlora:"}) {
    EXPECT_THAT(notes, Contains(HasSubstr(note)));
  }
  EXPECT_EQ(notes.size(), 11u);
  EXPECT_EQ(Parse("train_embedding: true\nmethod: qlora\n").method, "qlora");
  EXPECT_THAT(Parse("train_embedding: true\n").trainable, ElementsAre("embed"));
  EXPECT_EQ(Parse("use_full_attn: True\n").attention, "full");
  EXPECT_THAT(ParseJobSpec("fp16: maybe\n"), StatusIs(kInvalid, "fp16: expected true or false"));
}

TEST(ParseTest, SetFieldSetsAndClears) {
  JobSpec s;
  LL_ASSERT_OK(SetField(s, "ctx", "4096"));
  LL_ASSERT_OK(SetField(s, "target_modules", "q_proj, o_proj"));
  LL_ASSERT_OK(SetField(s, "labels", "a=1,b=x=y"));
  EXPECT_EQ(s.context_length, 4096);
  EXPECT_THAT(s.target_modules, ElementsAre("q_proj", "o_proj"));
  EXPECT_EQ(s.labels.at("b"), "x=y");
  const std::string twice = "labels: key a is given twice";
  EXPECT_THAT(SetField(s, "labels", "a=1,b=2,a=3"), StatusIs(kInvalid, twice));
  EXPECT_THAT(ParseJobSpec("labels: {a: 1, a: 2}\n"), StatusIs(kInvalid, twice));
  LL_ASSERT_OK(SetField(s, "context_length", ""));
  EXPECT_FALSE(s.context_length.has_value());
  EXPECT_THAT(SetField(s, "name", "\xff"), StatusIs(kInvalid, "name: expected UTF-8"));
  EXPECT_THAT(ParseJobSpec("name: \xff\n"), StatusIs(kInvalid, "expected UTF-8"));
  EXPECT_THAT(SetField(s, "learning_rat", "1"), StatusIs(kInvalid, "did you mean learning_rate?"));
}

TEST(ParseTest, MutatedTextNeverCrashes) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  const std::string base =
      "name: \"a b\"\nmodel: 7b\nlabels: {team: nlp}\nstages: [1, 2]\nlearning_rate: "
      "2e-5\nafter:\n  - x\n";
  const std::string json = R"({"name": "a", "labels": {"a": 1}, "stages": [1, 2], "seed": 1})";
  int parsed = 0;
  for (int i = 0; i < 4000; ++i) {
    std::string text = i % 2 ? base : json;
    for (unsigned n = random() % 5; n-- > 0;) {
      size_t at = random() % text.size();
      if (random() % 2)
        text[at] = static_cast<char>(random());
      else
        text.insert(at, 1, "{}[]:,&*!|>'\"%@`#-\n"[random() % 19]);
    }
    auto s = ParseJobSpec(text);
    if (!s.ok()) {
      EXPECT_EQ(s.status().message().find('\n'), absl::string_view::npos) << s.status();
      continue;
    }
    ++parsed;
    ToYaml(*s);
    Validate(*s).IgnoreError();
  }
  EXPECT_GT(parsed, 100);
}

TEST(WriteTest, YamlAndJsonRoundTrip) {
  JobSpec s = Parse(
      "name: 'a: \"b\" #c'\ngroup_ratio: 0.125\nlearning_rate: 1e-5\nlabels: {k: 'true'}\nseed: "
      "0\n");
  EXPECT_EQ(Parse(ToYaml(s)), s);
  EXPECT_EQ(Parse(ToJson(s).dump()), s);
  auto resolved = Resolve(Parse("model: 7b\nctx: 32768\n"));
  LL_ASSERT_OK(resolved);
  EXPECT_THAT(Differences(Parse(ToYaml(*resolved)), *resolved), IsEmpty());
  EXPECT_EQ(Parse(ToYaml(*resolved)), *resolved);  // keys that the table lacks
}

TEST(ValidateTest, RangesAndRules) {
  struct Case {
    const char* text;
    const char* message;
  };
  for (const Case& c : std::vector<Case>{
           {"context_length: 0", "context_length: expected a positive integer, found 0"},
           {"context_length: -1", "context_length: expected a positive integer, found -1"},
           {"group_ratio: 0.6", "group_ratio: expected a number from 0.125 to 0.5, found 0.6"},
           {"lora_rank: 0", "lora_rank: expected a positive integer"},
           {"method: magic",
            "method: expected one of full, lora, longlora, qlora, longqlora, found \"magic\""},
           {"target_modules: [lm_head]", "target_modules: expected a list of q_proj"},
           {"trainable: [embed, embed]", "trainable: expected each item once"},
           {"trainable: [none, norm]", "trainable: expected `none` alone"},
           {"context_length: 100\nmax_seq_length: 200",
            "max_seq_length: expected at most context_length (100)"},
           {"context_length: 3\ngroup_ratio: 0.25",
            "group_ratio: expected groups of at least one token"},
           {"model_config: c\nmethod: lora", "method: expected full"},
           {"model_config: c\nmodel: m", "model_config: given together with model"},
           {"eval_seq_len: 512\neval_context_size: 256",
            "eval_context_size: expected at least eval_seq_len (512)"},
           {"stages: [2, 1]", "stages: expected rising"},
           {"passkey_lengths: [64]\npasskey_interval: 8",
            "passkey_lengths: given together with passkey_max_tokens or passkey_interval"},
           {"kind: eval\npasskey_max_tokens: 100\npasskey_interval: 200",
            "passkey_interval: expected at most passkey_max_tokens (100)"},
           {"passkey_lengths: [64]", "eval_steps: expected a positive number, because passkey_l"},
           {"early_stopping_patience: 2", "eval_steps: expected a positive number, because early"},
           {"gpus: 8-4",
            "gpus: expected a range from the fewest ranks to the most, as 4-8, found 8-4"},
           {"gpus: 0-4", "gpus: expected a positive integer, or a range such as 4-8, found 0"},
           {"gpus: 1-65537", "max_gpus: expected a positive integer, at most 65536, found 65537"},
           {"kind: eval\ngpus: 1-2", "gpus: expected one number, because kind is eval, found 1-2"},
           {"gpus: 1-9\nglobal_batch_size: 8", "gpus: expected at most 8 ranks, one for each row"},
           {"wrap: roll\ndocument_boundaries: true", "wrap: expected split"},
           {"adam_beta2: 1.0", "adam_beta2: expected"}}) {
    EXPECT_THAT(Validate(Parse(c.text)), StatusIs(kInvalid, c.message)) << c.text;
  }
  LL_EXPECT_OK(Validate(JobSpec()));
}

TEST(ResolveTest, LongLoraIsThePapersRecipe) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s, Resolve(Parse("model: 7b\ncontext_length: 32768\ngpus: 8\n")));
  EXPECT_EQ(s.method, "longlora");
  EXPECT_EQ(s.attention, "s2");
  EXPECT_EQ(s.lora_rank, 8);
  EXPECT_EQ(s.learning_rate, 2e-5);
  EXPECT_EQ(s.adam_beta2, 0.95);
  EXPECT_EQ(s.global_batch_size, 64);
  EXPECT_EQ(s.max_steps, 1000);
  EXPECT_EQ(s.max_seq_length, 32768);
  EXPECT_TRUE(s.TrainsEmbedding() && s.TrainsNorm());
  EXPECT_THAT(s.target_modules, ElementsAre("q_proj", "k_proj", "v_proj", "o_proj"));
  LL_ASSERT_OK_AND_ASSIGN(
      JobSpec large, Resolve(Parse("model: 70b\nctx: 32768\n"), {.parameter_count = 68976648192}));
  EXPECT_EQ(large.learning_rate, 1e-5);
}

TEST(ResolveTest, OtherMethods) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec lora, Resolve(Parse("model: m\nctx: 8192\nmethod: lora\n")));
  EXPECT_EQ(lora.attention, "full");
  EXPECT_FALSE(lora.TrainsEmbedding() || lora.TrainsNorm());
  LL_ASSERT_OK_AND_ASSIGN(JobSpec q, Resolve(Parse("model: m\nctx: 8192\nmethod: longqlora\n")));
  EXPECT_EQ(q.lora_rank, 64);
  EXPECT_EQ(q.target_modules.size(), 7u);
  EXPECT_EQ(q.max_grad_norm, 0.3);
  EXPECT_EQ(q.lora_dropout, 0.05);
  EXPECT_EQ(q.gradient_accumulation_steps, 16);
  EXPECT_EQ(q.learning_rate, 2e-4);
  LL_ASSERT_OK_AND_ASSIGN(JobSpec full, Resolve(Parse("model_config: c.json\nctx: 256\n")));
  EXPECT_EQ(full.method, "full");
  EXPECT_TRUE(full.TrainsEmbedding() && full.TrainsNorm());
  EXPECT_FALSE(full.lora_rank.has_value());
}

TEST(ResolveTest, GivenKeysWinAndTheBatchStaysTheSame) {
  LL_ASSERT_OK_AND_ASSIGN(
      JobSpec s, Resolve(Parse("model: m\nctx: 8\ngpus: 2\nglobal_batch_size: 5\nseed: 1\n")));
  EXPECT_EQ(s.global_batch_size, 5);
  EXPECT_EQ(s.gradient_accumulation_steps, 3);
  EXPECT_EQ(s.seed, 1);
}

TEST(ResolveTest, QuantizationFollowsTheMethodUnlessGiven) {
  const auto resolved = [](const std::string& more) {
    return *Resolve(Parse("model: /m\nctx: 8192\n" + more));
  };
  EXPECT_EQ(resolved("method: longlora\n").quantization, "none");
  EXPECT_EQ(resolved("method: longlora\n").Base(), BaseFormat::kCompute);
  EXPECT_EQ(resolved("method: qlora\n").Base(), BaseFormat::kNf4);
  EXPECT_EQ(resolved("method: longqlora\n").Base(), BaseFormat::kNf4);
  EXPECT_EQ(resolved("method: longlora\nquantization: nf4\n").Base(), BaseFormat::kNf4);
  EXPECT_EQ(resolved("method: qlora\nquantization: none\n").Base(), BaseFormat::kCompute);
  EXPECT_THAT(Validate(Parse("method: full\nquantization: nf4\n")),
              StatusIs(kInvalid, "quantization: expected none, because method full"));
}

TEST(ResolveTest, AnFp8BaseIsForTrainingInBf16) {
  for (const char* more : {"", "precision: bf16\n", "method: longqlora\n"}) {
    const auto spec =
        Resolve(Parse("model: /m\nctx: 8192\nquantization: fp8\n" + std::string(more)));
    ASSERT_TRUE(spec.ok()) << spec.status();
    EXPECT_EQ(spec->Base(), BaseFormat::kFp8);
  }
  EXPECT_THAT(Validate(Parse("method: full\nquantization: fp8\n")),
              StatusIs(kInvalid,
                       "quantization: expected none, because method full trains every "
                       "weight, found fp8"));
  EXPECT_THAT(Validate(Parse("quantization: fp8\nprecision: fp32\n")),
              StatusIs(kInvalid, "precision: expected bf16, because quantization is fp8"));
  for (const char* kind : {"eval", "generate", "merge"}) {
    EXPECT_THAT(Validate(Parse("quantization: fp8\nkind: " + std::string(kind) + "\n")),
                StatusIs(kInvalid, "quantization: expected none or nf4, because kind is"));
  }
}

TEST(ResolveTest, AllLinearIsEveryLinearLayer) {
  const JobSpec spec = *Resolve(Parse("model: /m\nctx: 8192\ntarget_modules: all-linear\n"));
  EXPECT_THAT(spec.target_modules, ElementsAre("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                               "up_proj", "down_proj"));
  EXPECT_THAT(Validate(Parse("target_modules: [all-linear, q_proj]\n")),
              StatusIs(kInvalid, "`all-linear` alone"));
}

TEST(ResolveTest, EpochsStandWhereMaxStepsIsNotGiven) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s,
                          Resolve(Parse("model: m\nctx: 4096\nnum_train_epochs: 1.5\n")));
  EXPECT_EQ(s.num_train_epochs, 1.5);
  EXPECT_FALSE(s.max_steps.has_value());
  LL_ASSERT_OK_AND_ASSIGN(
      s, Resolve(Parse("model: m\nctx: 4096\nnum_train_epochs: 1.5\nmax_steps: 7\n")));
  EXPECT_FALSE(s.num_train_epochs.has_value());
  EXPECT_EQ(s.max_steps, 7);
  EXPECT_EQ(StepsOfEpochs(1.5, 20, 16), 2);
  EXPECT_EQ(StepsOfEpochs(2, 16, 16), 2);
  EXPECT_EQ(StepsOfEpochs(0.01, 20, 16), 1);
  EXPECT_THAT(Resolve(Parse("model: m\nctx: 4096\nnum_train_epochs: 0\n")),
              StatusIs(kInvalid, "num_train_epochs"));
}

TEST(ResolveTest, FullAttentionStepsAreANumberOrAShare) {
  const auto steps = [](const std::string& text) {
    return Resolve(Parse("model: /m\nctx: 8192\nmax_steps: 125\nfull_attention_steps: " + text))
        ->FullAttentionSteps();
  };
  EXPECT_EQ(Resolve(Parse("model: /m\nctx: 8192\n"))->FullAttentionSteps(), 0);
  EXPECT_EQ(steps("7"), 7);
  EXPECT_EQ(steps("125"), 125);
  EXPECT_EQ(steps("10%"), 13);  // rounded up
  EXPECT_EQ(steps("0%"), 0);
  EXPECT_EQ(steps("100%"), 125);
  for (const char* bad : {"-1", "126", "101%", "-1%", "some", "%", "nan%", "1.5"}) {
    EXPECT_THAT(Resolve(Parse("model: /m\nctx: 8192\nmax_steps: 125\nfull_attention_steps: '" +
                              std::string(bad) + "'")),
                StatusIs(kInvalid, "full_attention_steps: expected a number of steps"))
        << bad;
  }
}

TEST(ResolveTest, MissingKeysAreNamed) {
  EXPECT_THAT(Resolve(Parse("ctx: 8192\n")), StatusIs(kInvalid, "model: expected"));
  EXPECT_THAT(Resolve(Parse("model: m\n")), StatusIs(kInvalid, "context_length: expected"));
  EXPECT_THAT(Resolve(Parse("model: m\nctx: 64\neval_steps: 5\n")),
              StatusIs(kInvalid, "eval_data: expected"));
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s,
                          Resolve(Parse("model: m\n"), {.max_position_embeddings = 4096}));
  EXPECT_EQ(s.context_length, 4096);
}

TEST(ResolveTest, EvalDefaults) {
  LL_ASSERT_OK_AND_ASSIGN(
      JobSpec s, Resolve(Parse("kind: eval\nmodel: m\ndata: d.bin\neval_seq_len: 1024\n")));
  EXPECT_EQ(s.eval_context_size, 1024);
  EXPECT_EQ(s.eval_sliding_window, 256);
  EXPECT_EQ(s.eval_mode, "official");
  EXPECT_EQ(s.eval_data, "d.bin");
  EXPECT_FALSE(s.learning_rate.has_value());
}

TEST(ResolveTest, RetrievalDefaults) {
  const std::string eval = "kind: eval\nmodel: m\neval_task: ";
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s, Resolve(Parse(eval + "passkey\n")));  // LongLoRA's protocol
  EXPECT_EQ(s.passkey_max_tokens, 32000);
  EXPECT_EQ(s.passkey_interval, 1000);
  EXPECT_EQ(s.eval_num_tests, 10);
  EXPECT_EQ(s.seed, 0);
  EXPECT_FALSE(s.eval_context_size.has_value());
  EXPECT_FALSE(s.eval_mode.has_value());
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse(eval + "passkey\npasskey_max_tokens: 500\n")));
  EXPECT_EQ(s.passkey_interval, 500);
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse(eval + "passkey\npasskey_lengths: 64,128\nctx: 128\n")));
  EXPECT_EQ(s.passkey_depths, 5);
  EXPECT_EQ(s.eval_num_tests, 1);
  EXPECT_EQ(s.eval_context_size, 128);
  EXPECT_FALSE(s.passkey_max_tokens.has_value());
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse(eval + "topics\n")));
  EXPECT_THAT(s.topic_lengths, ElementsAre(3000, 6000, 10000, 13000, 16000));
  EXPECT_EQ(s.topic_prompt, "auto");
}

TEST(ResolveTest, EvaluationWhileTraining) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s,
                          Resolve(Parse("model: m\nctx: 64\neval_steps: 5\neval_data: e\n"
                                        "passkey_lengths: 64\n")));
  EXPECT_EQ(s.passkey_depths, 5);
  EXPECT_EQ(s.eval_num_tests, 1);
  EXPECT_EQ(s.early_stopping_patience, 0);
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse("model: m\nctx: 64\n")));
  EXPECT_FALSE(s.eval_num_tests.has_value());
}

TEST(ResolveTest, SftDefaults) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s, Resolve(Parse("model: m\nctx: 4096\nsft: true\n")));
  EXPECT_EQ(s.prompt_template, "longlora");
  EXPECT_EQ(s.truncation, "right");
  EXPECT_EQ(s.on_bad_sample, "stop");
  EXPECT_EQ(s.sft_packing, false);
  EXPECT_EQ(s.sft_group, "context");
  EXPECT_EQ(s.max_seq_length, 4096);
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse("model: m\nctx: 4096\nmethod: longqlora\nsft: true\n")));
  EXPECT_EQ(s.prompt_template, "vicuna");
  EXPECT_EQ(s.learning_rate, 1e-4);
  LL_ASSERT_OK_AND_ASSIGN(s, Resolve(Parse("model: m\nctx: 4096\n")));
  EXPECT_FALSE(s.prompt_template.has_value());
}

TEST(ResolveTest, SftKeysGoTogether) {
  const auto refused = [](const std::string& more, const std::string& message) {
    EXPECT_THAT(Resolve(Parse("model: m\nctx: 4096\n" + more)), StatusIs(kInvalid, message));
  };
  refused("prompt_template: llama2\n", "sft: expected true, because of prompt_template");
  refused("sft: false\nsft_packing: true\n", "sft: expected true, because of sft_packing");
  refused("sft: true\nsft_packing: true\nwrap: roll\n", "wrap: expected split");
  refused("sft: true\nsft_packing: true\nsft_group: longlora_sft\n", "sft_packing: expected false");
  refused("sft: true\nprompt_template: alpaca\n", "prompt_template: expected one of longlora");
}

TEST(ElasticTest, ARangeOfRanksIsTwoKeys) {
  for (const char* text : {"gpus: 4-8", "{\"gpus\": \"4-8\"}", "max_gpus: 8\ngpus: 4"}) {
    const JobSpec spec = Parse(text);
    EXPECT_EQ(spec.gpus, 4) << text;
    EXPECT_EQ(spec.max_gpus, 8) << text;
    EXPECT_EQ(Parse(ToYaml(spec)), spec) << text;
  }
  for (const char* text : {"gpus: 4-8\nmax_gpus: 8", "max_gpus: 8\ngpus: 4-8"})
    EXPECT_THAT(ParseJobSpec(text), StatusIs(kInvalid, "given twice")) << text;
  for (const char* text : {"gpus: 4-", "gpus: -4", "gpus: 4-8-9", "gpus: a-b", "max_gpus: 4-8"}) {
    const auto spec = ParseJobSpec(text);
    EXPECT_FALSE(spec.ok() && Validate(*spec).ok()) << text;
  }
}

TEST(ElasticTest, OneNumberOnTheLineTakesTheRangeOfTheFileAway) {
  JobSpec spec = Parse("gpus: 4-8");
  LL_EXPECT_OK(SetField(spec, "gpus", "2-3"));
  EXPECT_EQ(spec, Parse("gpus: 2-3"));
  LL_EXPECT_OK(SetField(spec, "gpus", "2"));
  EXPECT_EQ(spec, Parse("gpus: 2"));
  LL_EXPECT_OK(SetField(spec, "max_gpus", "6"));
  EXPECT_EQ(spec, Parse("gpus: 2-6"));
  LL_EXPECT_OK(SetField(spec, "gpus", ""));
  EXPECT_EQ(spec, JobSpec());
}

TEST(ElasticTest, TheBatchFollowsFromTheFewestRanks) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec s, Resolve(Parse("model: m\nctx: 8\ngpus: 4-8\n")));
  EXPECT_EQ(s.global_batch_size, 32);
  EXPECT_EQ(s.max_gpus, 8);
  EXPECT_THAT(Resolve(Parse("model: m\nctx: 8\ngpus: 1-9\n")),
              StatusIs(kInvalid, "gpus: expected at most 8 ranks, one for each row"));
}

TEST(ElasticTest, RanksThatShareARowComeTogether) {
  const std::string spec = "model: m\nctx: 8\ncontext_parallel: 2\nglobal_batch_size: 4\ngpus: ";
  LL_EXPECT_OK(Resolve(Parse(spec + "2-8\n")));
  EXPECT_THAT(Resolve(Parse(spec + "2-7\n")),
              StatusIs(kInvalid, "gpus: expected multiples of context_parallel (2), found 2-7"));
  EXPECT_THAT(Resolve(Parse(spec + "3-8\n")), StatusIs(kInvalid, "of context_parallel (2)"));
  EXPECT_THAT(Resolve(Parse(spec + "2-10\n")),
              StatusIs(kInvalid, "at most 8 ranks, 2 for each row"));
}

TEST(ResolveTest, OneProcessAnswersAndOneMerges) {
  for (const char* kind : {"merge", "generate"}) {
    const std::string spec = absl::StrCat("model: m\nctx: 4096\nkind: ", kind, "\ngpus: ");
    LL_EXPECT_OK(Resolve(Parse(spec + "1\n")));
    EXPECT_THAT(Resolve(Parse(spec + "2\n")),
                StatusIs(kInvalid, "gpus: expected 1, because one process"));
  }
}

TEST(ResolveTest, IsIdempotentForEveryMethodAndKind) {
  for (const char* method : {"full", "lora", "longlora", "qlora", "longqlora"}) {
    for (const char* kind : {"train", "eval", "merge", "generate"}) {
      JobSpec given = Parse("model: m\nctx: 4096\n");
      given.method = method;
      given.kind = kind;
      LL_ASSERT_OK_AND_ASSIGN(JobSpec once, Resolve(given));
      LL_ASSERT_OK_AND_ASSIGN(JobSpec twice, Resolve(once));
      EXPECT_THAT(Differences(once, twice), IsEmpty()) << method << " " << kind;
    }
  }
}

TEST(ContextParallelTest, GpusAreItsMultipleAndBatchesCountDataRanks) {
  LL_ASSERT_OK_AND_ASSIGN(JobSpec spec,
                          Resolve(Parse("model: m\nctx: 4096\ncontext_parallel: 4\n")));
  EXPECT_EQ(spec.gpus, 4);
  EXPECT_EQ(spec.global_batch_size, 8) << "one data rank, 8 rows accumulated";
  LL_ASSERT_OK_AND_ASSIGN(spec,
                          Resolve(Parse("model: m\nctx: 4096\ncontext_parallel: 2\ngpus: 8\n")));
  EXPECT_EQ(spec.global_batch_size, 4 * 8);
}

TEST(ContextParallelTest, RefusesWhatCannotShareRows) {
  const auto refused = [](const std::string& keys, const char* text) {
    EXPECT_THAT(Resolve(Parse("model: m\nctx: 4096\ncontext_parallel: 4\n" + keys)),
                StatusIs(kInvalid, text));
  };
  refused("gpus: 6\n", "gpus: expected a multiple of context_parallel (4)");
  refused("wrap: roll\n", "context_parallel: expected 1, because wrap: roll");
  refused("kind: eval\n", "context_parallel: expected 1, because only training");
}

TEST(ShardingTest, RefusesWhatDoesNotGoTogether) {
  const auto refused = [](const std::string& keys, const char* text) {
    EXPECT_THAT(Resolve(Parse("model: m\nctx: 4096\ngpus: 2\n" + keys)), StatusIs(kInvalid, text));
  };
  refused("kind: eval\nzero_stage: 1\n", "zero_stage: expected 0, because only a training");
  refused("kind: eval\nshard_base: true\n", "shard_base: expected false, because only a training");
  refused("method: full\nshard_base: true\n", "shard_base: expected false, because method full");
  refused("shard_base: true\neval_data: f\neval_steps: 5\npasskey_lengths: [512]\n",
          "shard_base: expected false, because passkey_lengths");
  refused("activation_offload: true\nrecompute: selective\n",
          "recompute: expected full or auto, because activation_offload");
  LL_ASSERT_OK_AND_ASSIGN(const JobSpec offloaded,
                          Resolve(Parse("model: m\nctx: 4096\nactivation_offload: true\n")));
  EXPECT_EQ(offloaded.recompute, "full");
}

TEST(DifferencesTest, NamesBothValues) {
  JobSpec a = Parse("max_steps: 100\n"), b = Parse("max_steps: 200\nseed: 1\n");
  EXPECT_THAT(Differences(a, b), ElementsAre("max_steps: 100 -> 200", "seed: (not given) -> 1"));
}

TEST(FieldsTest, NamesAndAliasesAreUnique) {
  std::set<std::string> seen;
  for (const SpecField& f : SpecFields()) {
    EXPECT_TRUE(seen.insert(f.name).second) << f.name;
    EXPECT_FALSE(f.help.empty()) << f.name;
    for (const std::string& alias : f.aliases) EXPECT_TRUE(seen.insert(alias).second) << alias;
  }
}

}  // namespace
}  // namespace ll
