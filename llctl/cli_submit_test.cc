// submit: one job, several at once.
#include "absl/strings/str_cat.h"
#include "llctl/cli_case.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ---- submit

TEST_F(CliTest, SubmitSendsTheFlagsUnderTheirKeys) {
  const Outcome run = Run({"submit",
                           "--model",
                           "7b",
                           "--ctx",
                           "32768",
                           "--data=books",
                           "--steps",
                           "10",
                           "--method",
                           "longlora",
                           "--trainable",
                           "embed",
                           "--trainable",
                           "norm",
                           "--labels",
                           "team=nlp,run=7",
                           "--no-shuffle",
                           "--sft",
                           "--learning_rate",
                           "3e-5",
                           "--seed",
                           "1",
                           "--seed",
                           "2"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "job-000000000001 QUEUED: waits for 2 slots\n");
  ASSERT_EQ(coordinator_.submits.size(), 1u);
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.model(), "7b");
  EXPECT_EQ(spec.context_length(), 32768);
  EXPECT_EQ(spec.data(), "books");
  EXPECT_EQ(spec.max_steps(), 10);
  EXPECT_THAT(spec.trainable(), ElementsAre("embed", "norm"));
  EXPECT_EQ(spec.labels().at("team"), "nlp");
  EXPECT_EQ(spec.labels().at("run"), "7");
  EXPECT_TRUE(spec.has_shuffle());
  EXPECT_FALSE(spec.shuffle());
  EXPECT_TRUE(spec.sft());
  EXPECT_DOUBLE_EQ(spec.learning_rate(), 3e-5);
  EXPECT_EQ(spec.seed(), 2);  // the last one counts
  EXPECT_FALSE(spec.has_gpus()) << "what the user did not give must stay absent";
}

TEST_F(CliTest, FlagsOverrideTheFileAndSetOverridesFlags) {
  const std::string file =
      Write("job.yaml", "model: 7b\ncontext_length: 1024\nmax_steps: 5\nseed: 3\n");
  const Outcome run =
      Run({"submit", "-f", file, "--steps", "6", "--set", "seed=9", "--set", "gpus=2"});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.context_length(), 1024);
  EXPECT_EQ(spec.max_steps(), 6);
  EXPECT_EQ(spec.seed(), 9);
  EXPECT_EQ(spec.gpus(), 2);
}

TEST_F(CliTest, RelativePathsThatExistBecomeAbsoluteAndNamesStay) {
  const std::string file = Write("tokens.bin", "x");
  const std::string relative = std::filesystem::relative(file).string();
  EXPECT_EQ(Run({"submit", "--model", "7b", "--data", relative}).code, 0);
  EXPECT_EQ(coordinator_.submits[0].spec().data(), std::filesystem::canonical(file).string());
  EXPECT_EQ(coordinator_.submits[0].spec().model(), "7b");
}

TEST_F(CliTest, RequestIdIsARandomUuidUnlessGiven) {
  Run({"submit", "--model", "7b"});
  Run({"submit", "--model", "7b"});
  Run({"submit", "--model", "7b", "--request-id", "mine"});
  ASSERT_EQ(coordinator_.submits.size(), 3u);
  const std::string first = coordinator_.submits[0].request_id();
  EXPECT_THAT(first, ::testing::MatchesRegex(
                         "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
  EXPECT_NE(first, coordinator_.submits[1].request_id());
  EXPECT_EQ(coordinator_.submits[2].request_id(), "mine");
}

TEST_F(CliTest, DryRunAsksForNothingToBeStored) {
  coordinator_.job.mutable_forecast()->set_bytes_per_rank(1'500'000'000);
  const Outcome run = Run({"submit", "--model", "7b", "--dry-run"});
  EXPECT_EQ(run.code, 0);
  EXPECT_TRUE(coordinator_.submits[0].dry_run());
  EXPECT_THAT(run.out, HasSubstr("1.5 GB a rank"));
  EXPECT_EQ(Run({"plan", "--model", "7b"}).out, run.out);
}

TEST_F(CliTest, APlanIsForTheTypesThatAreNamed) {
  const Outcome asked = Run({"plan", "--model", "7b", "--gpu-types", "H100,a100"});
  EXPECT_EQ(asked.code, 0) << asked.err;
  ASSERT_EQ(coordinator_.submits.size(), 1u);
  EXPECT_TRUE(coordinator_.submits[0].dry_run());
  EXPECT_THAT(coordinator_.submits[0].spec().gpu_types(), ElementsAre("H100", "a100"));
  // Without a coordinator: for the devices of these types that are known.
  coordinator_.failure = absl::UnavailableError("stopping");
  const auto plans = [this](const std::string& types) {
    const Outcome run =
        Run({"-o", "json", "plan", "--model", "7b", "--ctx", "8192", "--gpu-types", types});
    EXPECT_EQ(run.code, 0) << run.err;
    return nlohmann::json::parse(run.out);
  };
  const auto devices = [](const nlohmann::json& of) {
    std::vector<std::string> names;
    for (const auto& one : of)
      names.push_back(one.contains("refused") ? one["device"] : one["forecast"]["plan"]["device"]);
    return names;
  };
  EXPECT_THAT(devices(plans("H100,a100")), ElementsAre("A100-40", "A100-80", "H100"));
  EXPECT_THAT(devices(plans("cpu")), ElementsAre("cpu"));
  const auto old = plans("V100");
  EXPECT_THAT(devices(old), ElementsAre("V100-16", "V100-32"));
  EXPECT_THAT(old.dump(), HasSubstr("unsupported: needs sm_80+"));

  const Outcome unknown = Run({"plan", "--model", "7b", "--gpu-types", "H1000"});
  EXPECT_NE(unknown.code, 0);
  EXPECT_THAT(unknown.err, HasSubstr("gpu_types"));
  EXPECT_THAT(unknown.err, HasSubstr("H1000"));
  const Outcome two = Run({"plan", "--model", "7b", "--device", "A100-80", "--gpu-types", "H100"});
  EXPECT_NE(two.code, 0);
  EXPECT_THAT(two.err, HasSubstr("one of gpu_types, H100"));
  EXPECT_EQ(Run({"plan", "--model", "7b", "--device", "H100", "--gpu-types", "h100"}).code, 0);
}

TEST_F(CliTest, OutputFormatsOfSubmit) {
  EXPECT_EQ(Run({"-o", "name", "submit", "--model", "7b"}).out, "job-000000000001\n");
  const auto json = nlohmann::json::parse(Run({"submit", "--model", "7b", "-o", "json"}).out);
  EXPECT_EQ(json["job_id"], "job-000000000001");
  EXPECT_EQ(json["state"], "QUEUED");
  EXPECT_EQ(json["spec"]["model"], "7b");
  EXPECT_THAT(Run({"submit", "--model", "7b", "-o", "yaml"}).out, HasSubstr("state: \"QUEUED\"\n"));
}

TEST_F(CliTest, TheSchedulersKeysAreFlags) {
  const Outcome run = Run({"submit", "--model", "7b", "--after-any", "job-1,job-2", "--min-runtime",
                           "5m", "--deadline", "8h"});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_THAT(spec.after_any(), ElementsAre("job-1", "job-2"));
  EXPECT_EQ(spec.min_runtime(), 300);
  EXPECT_EQ(spec.deadline(), 8 * 3600);
}

// ---- several jobs at once

TEST_F(CliTest, StagesPrintEveryMemberAndWatchFollowsTheLast) {
  for (const char* id : {"job-00000000000a", "job-00000000000b"}) {
    v1::Job member;
    member.set_job_id(id);
    member.set_state(v1::BLOCKED);
    member.mutable_spec()->set_name(std::string("long-") + id[15]);
    coordinator_.members.push_back(member);
  }
  const std::vector<std::string> submit = {"submit", "--model",  "7b",    "--ctx",
                                           "64",     "--stages", "32,64", "--stage-steps",
                                           "5,6",    "--gate",   "ppl<=9"};
  Outcome run = Run(submit);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(coordinator_.submits[0].spec().stages(), ElementsAre(32, 64));
  EXPECT_THAT(coordinator_.submits[0].spec().stage_steps(), ElementsAre(5, 6));
  EXPECT_EQ(coordinator_.submits[0].spec().gate(), "ppl<=9");
  EXPECT_THAT(run.out, HasSubstr("job-00000000000a  long-a  BLOCKED"));
  EXPECT_THAT(run.out, HasSubstr("job-00000000000b  long-b  BLOCKED"));
  std::vector<std::string> names = submit, watch = submit;
  names.insert(names.begin(), {"-o", "name"});
  EXPECT_EQ(Run(names).out, "job-00000000000a\njob-00000000000b\n");
  coordinator_.watches = {{JobMessage(v1::SUCCEEDED)}};
  watch.push_back("--watch");
  run = Run(watch);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(coordinator_.watch_requests.at(0).job_id(), "job-000000000001");
  EXPECT_THAT(run.err, HasSubstr("llctl: job-00000000000a long-a"));
}

TEST_F(CliTest, ASweepIsOneRequestWithAJobForEachCombination) {
  const Outcome run = Run({"submit", "--model", "7b", "--name", "lr", "--sweep",
                           "learning_rate=1e-5,2e-5", "--sweep", "lora_rank=8,16"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_TRUE(coordinator_.submits.empty());
  ASSERT_EQ(coordinator_.submits_all.size(), 1u);
  const v1::SubmitAllRequest& request = coordinator_.submits_all[0];
  ASSERT_EQ(request.members_size(), 4);
  EXPECT_FALSE(request.request_id().empty());
  EXPECT_EQ(request.members(2).name(), "2");
  EXPECT_EQ(request.members(2).spec().name(), "lr-2");
  EXPECT_DOUBLE_EQ(request.members(2).spec().learning_rate(), 2e-5);
  EXPECT_EQ(request.members(2).spec().lora_rank(), 8);
  EXPECT_EQ(request.members(3).spec().labels().at("array"), "lr");
  EXPECT_EQ(request.members(3).spec().labels().at("lora_rank"), "16");
  EXPECT_THAT(run.out, HasSubstr("lr-3"));
  EXPECT_EQ(Run({"submit", "--model", "7b", "--sweep", "seed=1,2", "--watch"}).code, 2);
}

TEST_F(CliTest, ListAsksForLabels) {
  EXPECT_EQ(Run({"list", "--label", "graph=long", "--label", "stage"}).code, 0);
  ASSERT_EQ(coordinator_.lists.size(), 1u);
  EXPECT_EQ(coordinator_.lists[0].labels().at("graph"), "long");
  EXPECT_EQ(coordinator_.lists[0].labels().at("stage"), "");
  EXPECT_EQ(Run({"list", "--label", "=x"}).code, 2);
  EXPECT_THAT(Run({"list", "--label", "stage=a", "--label", "stage=b"}).err,
              HasSubstr("label: expected each key once, found stage twice"));
}

// A script's variable that is not set would mean the default.
TEST_F(CliTest, EmptyValuesAreRefused) {
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"submit", "--model", "7b", "--steps", ""},
                                             {"submit", "--model", ""},
                                             {"list", "--coordinator", ""},
                                             {"data", "add", "book", ""}}) {
    const Outcome run = Run(arguments);
    EXPECT_EQ(run.code, kExitUsage) << arguments.front();
    EXPECT_THAT(run.err, HasSubstr("expected a value, found an empty one")) << arguments.front();
  }
  EXPECT_TRUE(coordinator_.submits.empty());
  // The way to take a file's key away.
  const std::string file = Write("job.yaml", "model: 7b\nmax_steps: 5\n");
  EXPECT_EQ(Run({"submit", "-f", file, "--set", "max_steps="}).code, 0);
  ASSERT_EQ(coordinator_.submits.size(), 1u);
  EXPECT_FALSE(coordinator_.submits[0].spec().has_max_steps());
}

TEST_F(CliTest, FlagsThatWouldMeanNothingAreRefused) {
  for (const char* flag : {"--hosts", "--gpus-per-host", "--device-memory", "--prices"}) {
    const Outcome run = Run({"plan", "--model", "7b", flag, "2"});
    EXPECT_EQ(run.code, kExitUsage) << flag;
    EXPECT_THAT(run.err, HasSubstr(absl::StrCat(flag, ": expected --device KIND beside it")));
  }
  EXPECT_THAT(Run({"plan", "--model", "7b", "--trainer", "x"}).err,
              HasSubstr("--trainer: expected --calibrate beside it"));
  EXPECT_THAT(Run({"plan", "--model", "7b", "--device", "H100", "--device-memory", "-1"}).err,
              HasSubstr("--device-memory: expected a size such as 16GB, found -1"));
  EXPECT_EQ(Run({"plan", "--model", "7b", "--device", "H100", "--device-memory", "90GB"}).code, 0);
}

TEST_F(CliTest, WhatCannotBeParsedIsSaidInOurWords) {
  EXPECT_THAT(Run({"list", "-o", "xml"}).err,
              HasSubstr("--output: expected one of table, json, yaml, name, found xml"));
  EXPECT_THAT(Run({"list", "--limit", "1", "--limit", "2"}).err,
              HasSubstr("--limit: expected once, found 2 times"));
  EXPECT_THAT(Run({"queues", "set", "q", "--weight", "abc"}).err,
              HasSubstr("--weight: expected a number, found abc"));
}

}  // namespace
}  // namespace ll
