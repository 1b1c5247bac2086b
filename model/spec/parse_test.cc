#include <random>

#include "base/field_error.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"
#include "model/spec/job_spec.h"
#include "model/spec/testing.h"

namespace ll {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

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

}  // namespace
}  // namespace ll
