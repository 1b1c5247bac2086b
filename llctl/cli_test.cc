// Whole command lines against a coordinator in this process: output, requests, errors and exit
// codes.
#include "llctl/cli.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/fake_clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/json_util.h"
#include "gtest/gtest.h"
#include "llctl/errors.h"
#include "llctl/fake_coordinator.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

struct Outcome {
  int code;
  std::string out;
  std::string err;
};

class CliTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = ::testing::TempDir() + "/llctl_" + info->name() + "_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
    variables_["LLCTL_COORDINATOR"] = coordinator_.address();
    variables_["LL_DATA_DIR"] = folder_;
    coordinator_.job.set_job_id("job-000000000001");
    coordinator_.job.set_state(v1::QUEUED);
    coordinator_.job.set_reason("waits for 2 slots");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Outcome Run(const std::vector<std::string>& arguments, bool terminal = false) {
    std::ostringstream out, err;
    const Environment environment = {
        .variable = [this](const std::string& name) { return variables_[name]; },
        .out = out,
        .err = err,
        .out_is_terminal = terminal,
        .columns = 80,
        .clock = RealClock(),
        .random = random_,
        .interrupt = interrupt_,
    };
    const int code = RunLlctl(arguments, environment);
    return {code, out.str(), err.str()};
  }

  std::string Write(const std::string& name, const std::string& text) {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path) << text;
    return path;
  }

  v1::WatchResponse JobMessage(v1::JobState state, const std::string& reason = "") {
    v1::WatchResponse message;
    *message.mutable_job() = coordinator_.job;
    message.mutable_job()->set_state(state);
    message.mutable_job()->set_reason(reason);
    message.mutable_job()->mutable_progress()->set_max_steps(4);
    return message;
  }
  static v1::WatchResponse StepMessage(int64_t step) {
    v1::WatchResponse message;
    message.mutable_step()->set_step(step);
    message.mutable_step()->set_loss(3.5 - 0.25 * static_cast<double>(step));
    message.mutable_step()->set_tokens_per_second(1234);
    message.mutable_step()->set_step_seconds(2);
    return message;
  }

  FakeCoordinator coordinator_;
  std::map<std::string, std::string> variables_;
  std::string folder_;
  SeededRandom random_{7};
  Interrupt interrupt_;
};

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
}

// ---- what is wrong with the input

struct BadInput {
  std::vector<std::string> arguments;
  std::string field;
  std::string message;
};

TEST_F(CliTest, BadInputIsOneLineThatNamesTheFieldAndExitsTwo) {
  const std::string unknown_key = Write("unknown.yaml", "model: 7b\nlerning_rate: 1\n");
  const std::string not_yaml = Write("list.yaml", "- a\n- b\n");
  const std::vector<BadInput> cases = {
      {{"submit", "--ctx", "-5"}, "context_length", "expected"},
      {{"submit", "--ctx", "many"}, "context_length", "many"},
      {{"submit", "--method", "lorra"}, "method", "longlora"},
      {{"submit", "--set", "colour=red"}, "colour", ""},
      {{"submit", "--set", "seed"}, "set", "KEY=VALUE"},
      {{"submit", "-f", "/nowhere/job.yaml"}, "/nowhere/job.yaml", "No such file"},
      {{"submit", "-f", unknown_key}, "lerning_rate", "learning_rate"},
      {{"submit", "-f", not_yaml}, "", "list.yaml"},
      {{"submit", "--modl", "7b"}, "", "--model"},
      {{"submit", "--request-id"}, "", "request-id"},
      {{"list", "--state", "SLEEPING"}, "state", "SLEEPING"},
      {{"list", "--limit", "0"}, "", "limit"},
      {{"get"}, "", "JOB"},
      {{"frobnicate"}, "", "frobnicate"},
      {{}, "", "subcommand"},
      {{"list", "--coordinator", "nowhere"}, "coordinator", "HOST:PORT"},
      {{"list", "--coordinator", "h:99999"}, "coordinator", "99999"},
      {{"list", "--token-file", "/nowhere/token"}, "/nowhere/token", "No such file"},
      {{"list", "--ca", "/nowhere/ca.pem"}, "/nowhere/ca.pem", "No such file"},
      {{"models", "add", "70b", "relative/path"}, "path", "absolute"},
      {{"data", "add", "books", "b.bin"}, "path", "absolute"},
      {{"eval", "perplexity"}, "job", "--model"},
      {{"completion", "tcsh"}, "shell", "bash, zsh, fish"},
  };
  for (const BadInput& bad : cases) {
    const std::string name = ::testing::PrintToString(bad.arguments);
    const Outcome text = Run(bad.arguments);
    EXPECT_EQ(text.code, kExitUsage) << name << text.err;
    EXPECT_THAT(text.err, StartsWith("llctl: error: ")) << name;
    EXPECT_THAT(text.err, HasSubstr(bad.message)) << name;
    EXPECT_EQ(std::count(text.err.begin(), text.err.end(), '\n'), 1) << name << text.err;
    EXPECT_EQ(text.out, "") << name;

    std::vector<std::string> with_json = bad.arguments;
    with_json.insert(with_json.end(), {"-o", "json"});
    if (bad.arguments == std::vector<std::string>{"submit", "--request-id"})
      continue;  // -o would be its value
    const Outcome run = Run(with_json);
    const auto json = nlohmann::json::parse(run.err, nullptr, /*allow_exceptions=*/false);
    ASSERT_TRUE(json.is_object()) << name << run.err;
    EXPECT_EQ(json["code"], "INVALID_ARGUMENT") << name;
    EXPECT_EQ(json["field"], bad.field) << name << run.err;
    EXPECT_TRUE(json.contains("message") && json.contains("hint")) << name;
  }
  EXPECT_TRUE(coordinator_.submits.empty()) << "bad input must not reach the coordinator";
}

TEST_F(CliTest, EveryStatusHasItsExitCode) {
  const std::vector<std::pair<absl::StatusCode, int>> codes = {
      {absl::StatusCode::kInvalidArgument, kExitUsage},
      {absl::StatusCode::kFailedPrecondition, kExitRefused},
      {absl::StatusCode::kResourceExhausted, kExitRefused},
      {absl::StatusCode::kUnavailable, kExitUnavailable},
      {absl::StatusCode::kDeadlineExceeded, kExitTimeout},
      {absl::StatusCode::kPermissionDenied, kExitDenied},
      {absl::StatusCode::kUnauthenticated, kExitDenied},
      {absl::StatusCode::kNotFound, kExitNotFound},
      {absl::StatusCode::kAlreadyExists, kExitConflict},
      {absl::StatusCode::kInternal, kExitJobFailed},
  };
  for (const auto& [code, exit_code] : codes) {
    coordinator_.failure = absl::Status(code, "what went wrong");
    EXPECT_EQ(Run({"list"}).code, exit_code) << absl::StatusCodeToString(code);
  }
}

TEST_F(CliTest, FieldAndHintOfTheCoordinatorArrive) {
  coordinator_.failure =
      FieldStatus(absl::StatusCode::kFailedPrecondition, "model",
                  "no weights are registered for 70b", "llctl models add 70b PATH");
  const Outcome text = Run({"submit", "--model", "70b", "--ctx", "32768"});
  EXPECT_EQ(text.code, kExitRefused);
  EXPECT_EQ(text.err,
            "llctl: error: model: no weights are registered for 70b; llctl models add 70b PATH\n");
  const auto json = nlohmann::json::parse(Run({"submit", "--model", "70b", "--output=json"}).err);
  EXPECT_EQ(json["code"], "FAILED_PRECONDITION");
  EXPECT_EQ(json["field"], "model");
  EXPECT_EQ(json["hint"], "llctl models add 70b PATH");
}

TEST_F(CliTest, NoCoordinatorIsExitFourAndSaysWhatToDo) {
  coordinator_.Stop();
  const Outcome run = Run({"list"});
  EXPECT_EQ(run.code, kExitUnavailable);
  EXPECT_THAT(run.err, HasSubstr("cannot reach " + variables_["LLCTL_COORDINATOR"]));
  EXPECT_THAT(run.err, HasSubstr("start ll-coordinator"));
}

// ---- whom to talk to and as whom

TEST_F(CliTest, AddressAndTokenOfTheLocalCoordinatorAreFound) {
  variables_["LLCTL_COORDINATOR"] = "";
  Write("endpoints.json",
        R"({"grpc": ")" + coordinator_.address() + R"(", "http": "127.0.0.1:1"})");
  Write("token", "s3cret\n");
  EXPECT_EQ(Run({"submit", "--model", "7b"}).code, 0);
  EXPECT_EQ(coordinator_.authorization, "Bearer s3cret");
  variables_["LLCTL_TOKEN"] = "from-environment";
  EXPECT_EQ(Run({"submit", "--model", "7b"}).code, 0);
  EXPECT_EQ(coordinator_.authorization, "Bearer from-environment");
  EXPECT_EQ(Run({"submit", "--model", "7b", "--token-file", Write("other", "from-file\n")}).code,
            0);
  EXPECT_EQ(coordinator_.authorization, "Bearer from-file");
}

TEST_F(CliTest, ATokenIsNotSentUnencryptedToAnotherHost) {
  variables_["LLCTL_TOKEN"] = "s3cret";
  const Outcome run = Run({"list", "--coordinator", "192.0.2.1:7070"});
  EXPECT_EQ(run.code, kExitRefused);
  EXPECT_THAT(run.err, HasSubstr("not sent unencrypted"));
}

// ---- list, get, why, workers, models

TEST_F(CliTest, ListFetchesOnePageOrAll) {
  for (int i = 0; i < 250; ++i) {
    v1::Job job;
    job.set_job_id("job-" + std::to_string(i));
    job.set_state(v1::RUNNING);
    job.set_reason("trains");
    coordinator_.jobs.push_back(job);
  }
  coordinator_.page_size = 60;
  const auto count = [](const std::string& text) {
    return std::count(text.begin(), text.end(), '\n');
  };
  const Outcome newest = Run({"list", "-o", "name"});
  EXPECT_EQ(count(newest.out), 100);
  EXPECT_THAT(newest.err, HasSubstr("--all"));
  EXPECT_EQ(count(Run({"list", "-o", "name", "--limit", "7"}).out), 7);
  EXPECT_EQ(count(Run({"list", "-o", "name", "--all"}).out), 250);
  EXPECT_EQ(nlohmann::json::parse(Run({"list", "--all", "-o", "json"}).out).size(), 250u);
  EXPECT_EQ(count(Run({"list", "--all"}).out), 251);  // with the header
}

TEST_F(CliTest, EmptyListIsAnEmptyArray) {
  EXPECT_EQ(Run({"list", "-o", "json"}).out, "[]\n");
  EXPECT_EQ(Run({"list"}).code, 0);
}

TEST_F(CliTest, ColourAndCuttingOnlyOnATerminal) {
  v1::Job job = coordinator_.job;
  job.set_state(v1::FAILED);
  job.set_reason(std::string(200, 'x'));
  coordinator_.jobs = {job};
  const std::string plain = Run({"list"}).out;
  EXPECT_THAT(plain, Not(HasSubstr("\033[")));
  EXPECT_THAT(plain, HasSubstr(std::string(200, 'x')));
  const std::string terminal = Run({"list"}, /*terminal=*/true).out;
  EXPECT_THAT(terminal, HasSubstr("\033[31mFAILED\033[0m"));
  EXPECT_THAT(terminal, Not(HasSubstr(std::string(200, 'x'))));
  variables_["NO_COLOR"] = "1";
  EXPECT_THAT(Run({"list"}, /*terminal=*/true).out, Not(HasSubstr("\033[")));
}

TEST_F(CliTest, GetShowsTheHistoryWhenAsked) {
  v1::Transition* transition = coordinator_.job.add_history();
  transition->set_state(v1::QUEUED);
  transition->set_reason("was submitted");
  *coordinator_.job.add_steps() = StepMessage(3).step();
  EXPECT_THAT(Run({"get", "job-000000000001"}).out, HasSubstr("waits for 2 slots"));
  EXPECT_THAT(Run({"get", "job-000000000001", "--history"}).out, HasSubstr("was submitted"));
  const auto json =
      nlohmann::json::parse(Run({"get", "job-000000000001", "--history", "-o", "json"}).out);
  EXPECT_EQ(json["steps"][0]["step"], 3);
  EXPECT_EQ(json["steps"][0]["loss"], 2.75);
  EXPECT_EQ(Run({"get", "job-2"}).code, kExitNotFound);
}

TEST_F(CliTest, SmallCommands) {
  EXPECT_EQ(Run({"why", "job-000000000001"}).out, "it waits for 2 slots\n");
  EXPECT_THAT(Run({"workers", "list"}).out, HasSubstr("2 x cpu, 8 GB each"));
  EXPECT_EQ(nlohmann::json::parse(Run({"workers", "list", "-o", "json"}).out)[0]["worker"], "w1");
  EXPECT_EQ(Run({"cancel", "a", "b", "--reason", "wrong data"}).code, 0);
  EXPECT_EQ(Run({"pause", "a"}).code, 0);
  EXPECT_EQ(Run({"resume", "a"}).code, 0);
  EXPECT_THAT(coordinator_.controls,
              ElementsAre("cancel a wrong data", "cancel b wrong data", "pause a", "resume a"));
  EXPECT_THAT(Run({"version"}).out, HasSubstr("ll-coordinator 9.9.9 (store sqlite, term 3)"));
  coordinator_.Stop();
  EXPECT_EQ(Run({"version"}).code, 0);
  EXPECT_EQ(Run({"version", "--client"}).err, "");
}

TEST_F(CliTest, ModelsAddSendsTheConfigWhereItCanBeRead) {
  Write("config.json", R"({"model_type": "llama"})");
  EXPECT_EQ(Run({"models", "add", "tiny", folder_}).code, 0);
  EXPECT_EQ(Run({"models", "add", "70b", "/weights/elsewhere"}).code, 0);
  ASSERT_EQ(coordinator_.models_added.size(), 2u);
  EXPECT_EQ(coordinator_.models_added[0].config_json(), R"({"model_type": "llama"})");
  EXPECT_EQ(coordinator_.models_added[1].config_json(), "");
}

// ---- watch, logs, eval

TEST_F(CliTest, WatchPrintsLinesAndEndsWithTheJobsOutcome) {
  coordinator_.watches = {{JobMessage(v1::RUNNING, "trains"), StepMessage(1), StepMessage(2),
                           JobMessage(v1::SUCCEEDED, "all ranks ended well")}};
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("job-000000000001 RUNNING: trains\n"));
  EXPECT_THAT(run.out, HasSubstr("step 1/4  loss 3.2500  1,234 tokens/s  ETA 6"));
  EXPECT_THAT(run.out, HasSubstr("SUCCEEDED: all ranks ended well\n"));
}

TEST_F(CliTest, WatchExitCodesFollowTheJob) {
  coordinator_.watches = {{JobMessage(v1::FAILED, "loss became NaN")}};
  EXPECT_EQ(Run({"watch", "job-000000000001"}).code, kExitJobFailed);
  coordinator_.watches = {{JobMessage(v1::CANCELLED)}};
  EXPECT_EQ(Run({"submit", "--model", "7b", "--watch"}).code, kExitCancelled);
  coordinator_.failure = absl::NotFoundError("no job x");
  EXPECT_EQ(Run({"watch", "x"}).code, kExitNotFound);
}

TEST_F(CliTest, WatchSurvivesABrokenStreamAndRepeatsNothing) {
  coordinator_.watch_end = grpc::Status(grpc::UNAVAILABLE, "stopping");
  coordinator_.watches = {
      {JobMessage(v1::RUNNING, "trains"), StepMessage(1), StepMessage(2)},
      {JobMessage(v1::RUNNING, "trains"), StepMessage(3), JobMessage(v1::SUCCEEDED)}};
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(coordinator_.watch_requests.size(), 2u);
  EXPECT_EQ(coordinator_.watch_requests[1].from_step(), 3);
  EXPECT_THAT(run.err, HasSubstr("trying again"));
  EXPECT_THAT(run.err, HasSubstr("is back"));
  // An unchanged state is told once.
  EXPECT_EQ(run.out.find("RUNNING"), run.out.rfind("RUNNING"));
}

TEST_F(CliTest, WatchAsJsonIsOneObjectALine) {
  v1::WatchResponse event;
  (*event.mutable_event()->mutable_fields())["event"].set_string_value("checkpoint");
  (*event.mutable_event()->mutable_fields())["step"].set_number_value(2);
  coordinator_.watches = {
      {JobMessage(v1::RUNNING), StepMessage(1), event, JobMessage(v1::SUCCEEDED)}};
  std::istringstream lines(Run({"watch", "job-000000000001", "-o", "json"}).out);
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(objects.size(), 4u);
  EXPECT_EQ(objects[0]["job"]["state"], "RUNNING");
  EXPECT_EQ(objects[1]["step"]["loss"], 3.25);
  EXPECT_EQ(objects[2]["event"]["step"], 2);
  EXPECT_TRUE(objects[2]["event"]["step"].is_number_integer());
  EXPECT_EQ(objects[3]["job"]["state"], "SUCCEEDED");
}

TEST_F(CliTest, CtrlCDetaches) {
  coordinator_.watches = {{JobMessage(v1::RUNNING)}, {}};
  coordinator_.on_watch = [this] { interrupt_.Raise(); };
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, kExitDetached);
  EXPECT_THAT(run.err, HasSubstr("the job goes on"));
  EXPECT_TRUE(coordinator_.controls.empty()) << "detaching must not cancel";
}

TEST_F(CliTest, LiveLineOnATerminal) {
  coordinator_.watches = {{JobMessage(v1::RUNNING), StepMessage(2), JobMessage(v1::SUCCEEDED)}};
  const std::string out = Run({"watch", "job-000000000001"}, /*terminal=*/true).out;
  EXPECT_THAT(out, HasSubstr("\r\033[K[##########..........] step 2/4"));
}

TEST_F(CliTest, LogsAreWrittenAsTheyAre) {
  coordinator_.log_chunks = {"one\n", "two \xff\n"};
  const Outcome run = Run({"logs", "job-000000000001", "--rank", "1", "--tail", "100"});
  EXPECT_EQ(run.code, 0);
  EXPECT_EQ(run.out, "one\ntwo \xff\n");
  EXPECT_EQ(coordinator_.logs_requests[0].rank(), 1);
  EXPECT_EQ(coordinator_.logs_requests[0].offset(), -100);
}

TEST_F(CliTest, FollowedLogsGoOnAtTheirOffset) {
  coordinator_.log_chunks = {"abc"};
  coordinator_.failure = absl::UnavailableError("stopping");
  std::thread heal([this] {
    while (true) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      std::lock_guard lock(coordinator_.mutex);
      if (coordinator_.logs_requests.empty()) continue;
      coordinator_.failure = absl::OkStatus();
      coordinator_.log_chunks = {"def"};
      return;
    }
  });
  const Outcome run = Run({"logs", "-f", "job-000000000001"});
  heal.join();
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "abcdef");
  EXPECT_EQ(coordinator_.logs_requests.back().offset(), 3);
}

TEST_F(CliTest, EvalSubmitsWaitsAndPrintsTheResult) {
  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  (*done.mutable_job()->mutable_result()->mutable_fields())["perplexity"].set_number_value(8.125);
  (*done.mutable_job()->mutable_result()->mutable_fields())["tokens"].set_number_value(4096);
  coordinator_.watches = {{done}};
  const Outcome run =
      Run({"eval", "perplexity", "--job", "job-000000000001", "--seq-len", "1024", "-o", "json"});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.kind(), "eval");
  EXPECT_EQ(spec.job(), "job-000000000001");
  EXPECT_FALSE(spec.has_model()) << "the coordinator takes the job's";
  EXPECT_EQ(spec.eval_seq_len(), 1024);
  const auto json = nlohmann::json::parse(run.out);
  EXPECT_EQ(json["perplexity"], 8.125);
  EXPECT_EQ(json["tokens"], 4096);
  EXPECT_EQ(json["job_id"], "job-000000000001");
}

TEST_F(CliTest, PasskeyPrintsItsGridAndWritesTheHeatMap) {
  const std::string result = R"({"result": {"task": "passkey", "accuracy": 0.75, "grid": [
      {"length": 1024, "depth": 0, "accuracy": 1}, {"length": 1024, "depth": 1, "accuracy": 1},
      {"length": 2048, "depth": 0, "accuracy": 0}, {"length": 2048, "depth": 1, "accuracy": 1}]}})";
  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  v1::Job parsed;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(result, &parsed).ok());
  *done.mutable_job()->mutable_result() = parsed.result();
  coordinator_.watches = {{done}};
  const std::string plot = folder_ + "/map.svg";
  const Outcome run = Run({"eval", "passkey", "--model", "tiny", "--lengths", "1024,2048",
                           "--depths", "2", "--num-tests", "3", "--plot", plot});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.eval_task(), "passkey");
  EXPECT_THAT(spec.passkey_lengths(), ElementsAre(1024, 2048));
  EXPECT_EQ(spec.passkey_depths(), 2);
  EXPECT_EQ(spec.eval_num_tests(), 3);
  EXPECT_THAT(run.out, HasSubstr("0.75"));
  EXPECT_THAT(run.out, ::testing::ContainsRegex("DEPTH +1024 +2048\n"));
  EXPECT_THAT(run.out, ::testing::ContainsRegex("0% +1.00 +0.00\n"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string svg, ReadFile(plot));
  EXPECT_THAT(svg, StartsWith("<svg"));
}

TEST_F(CliTest, TopicsSendsItsFlags) {
  coordinator_.watches = {{JobMessage(v1::SUCCEEDED)}};
  EXPECT_EQ(
      Run({"eval", "topics", "--model", "tiny", "--lengths", "3000", "--prompt", "plain"}).code, 0);
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.eval_task(), "topics");
  EXPECT_THAT(spec.topic_lengths(), ElementsAre(3000));
  EXPECT_EQ(spec.topic_prompt(), "plain");
}

TEST_F(CliTest, MergeSubmitsAndWithWatchPrintsTheFolder) {
  const Outcome submitted = Run({"merge", "job-000000000001", "--out", "book-8k", "--onto", "nf4",
                                 "--dtype", "bf16", "--verify", "book"});
  EXPECT_EQ(submitted.code, 0) << submitted.err;
  EXPECT_EQ(submitted.out, "job-000000000001 QUEUED: waits for 2 slots\n");
  const v1::JobSpec spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.kind(), "merge");
  EXPECT_EQ(spec.job(), "job-000000000001");
  EXPECT_EQ(spec.merge_out(), "book-8k");
  EXPECT_EQ(spec.merge_onto(), "nf4");
  EXPECT_EQ(spec.merge_dtype(), "bf16");
  EXPECT_EQ(spec.eval_data(), "book");

  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  (*done.mutable_job()->mutable_result()->mutable_fields())["out"].set_string_value("/jobs/x/m");
  coordinator_.watches = {{done}};
  const Outcome watched = Run({"merge", "--adapter", "/a", "--watch", "-o", "json"});
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_EQ(coordinator_.submits[1].spec().adapter(), "/a");
  EXPECT_EQ(nlohmann::json::parse(watched.out)["out"], "/jobs/x/m");

  coordinator_.watches = {{JobMessage(v1::FAILED, "--onto: expected nf4")}};
  EXPECT_EQ(Run({"merge", "job-000000000001", "--watch"}).code, kExitJobFailed);
  EXPECT_EQ(Run({"merge", "--out", "x"}).code, kExitUsage);
}

TEST_F(CliTest, AFailedEvaluationIsExitOne) {
  coordinator_.watches = {{JobMessage(v1::FAILED, "data: no such file")}};
  const Outcome run = Run({"eval", "perplexity", "--model", "tiny"});
  EXPECT_EQ(run.code, kExitJobFailed);
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(run.err, HasSubstr("no such file"));
}

// ---- schedules

TEST_F(CliTest, AScheduleIsMadeOfItsFlagsAndTheFile) {
  LL_ASSERT_OK(WriteFileAtomic(folder_ + "/nightly.yaml", "model: tiny\ncontext_length: 512\n"));
  const Outcome run = Run({"schedule",
                           "create",
                           "nightly",
                           "--cron",
                           "0 2 * * *",
                           "--tz",
                           "Europe/Berlin",
                           "-f",
                           folder_ + "/nightly.yaml",
                           "--set",
                           "seed=7",
                           "--missed",
                           "all",
                           "--overlap",
                           "queue",
                           "--start-within",
                           "3600",
                           "--history",
                           "9",
                           "--tolerance-loss",
                           "0.05",
                           "-o",
                           "json"});
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(coordinator_.schedules.made.size(), 1u);
  const v1::CreateScheduleRequest& request = coordinator_.schedules.made[0];
  EXPECT_FALSE(request.replace());
  const v1::Schedule& schedule = request.schedule();
  EXPECT_EQ(schedule.name(), "nightly");
  EXPECT_EQ(schedule.cron(), "0 2 * * *");
  EXPECT_EQ(schedule.time_zone(), "Europe/Berlin");
  EXPECT_EQ(schedule.missed(), "all");
  EXPECT_EQ(schedule.overlap(), "queue");
  EXPECT_EQ(schedule.start_within(), 3600);
  EXPECT_EQ(schedule.history_limit(), 9);
  EXPECT_EQ(schedule.tolerances().loss(), 0.05);
  EXPECT_FALSE(schedule.tolerances().has_memory());
  EXPECT_EQ(schedule.spec().model(), "tiny");
  EXPECT_EQ(schedule.spec().seed(), 7);
  EXPECT_EQ(nlohmann::json::parse(run.out)["name"], "nightly");
  EXPECT_EQ(Run({"schedule", "create", "nightly"}).code, kExitUsage);
}

TEST_F(CliTest, SchedulesAreShownWithTheirRunsAndVerdicts) {
  const Outcome show = Run({"schedule", "show", "nightly"});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("0 2 * * * in Europe/Berlin"));
  EXPECT_THAT(show.out, HasSubstr("regressed"));
  EXPECT_THAT(show.out, HasSubstr("final loss 2.5 is 25 % above 2"));
  EXPECT_THAT(show.out, HasSubstr("2026-03-29T01:00:00Z and 2 before, from 2026-03-27T01:00:00Z"));
  const Outcome list = Run({"schedule", "list"});
  EXPECT_THAT(list.out, HasSubstr("nightly"));
  EXPECT_EQ(Run({"schedule", "list", "-o", "name"}).out, "nightly\n");
  EXPECT_TRUE(nlohmann::json::parse(Run({"schedule", "list", "-o", "json"}).out).is_array());
  const auto json = nlohmann::json::parse(Run({"schedule", "show", "nightly", "-o", "json"}).out);
  EXPECT_EQ(json["runs"][0]["verdict"], "REGRESSED");
  EXPECT_EQ(json["runs"][0]["diverging_step"], 120);
}

TEST_F(CliTest, ASchedulesControls) {
  EXPECT_EQ(Run({"schedule", "pause", "nightly"}).code, 0);
  EXPECT_EQ(Run({"schedule", "resume", "nightly"}).code, 0);
  coordinator_.job.set_job_id("job-000000000001");
  EXPECT_EQ(Run({"schedule", "run", "nightly", "-o", "name"}).out, "job-000000000001\n");
  const Outcome gone = Run({"schedule", "delete", "nightly"});
  EXPECT_EQ(gone.code, 0);
  EXPECT_EQ(gone.out, "");
  EXPECT_THAT(gone.err, HasSubstr("jobs of its runs go on"));
  EXPECT_EQ(coordinator_.controls, (std::vector<std::string>{"pause nightly", "resume nightly",
                                                             "run nightly", "delete nightly"}));
  coordinator_.failure = FieldStatus(absl::StatusCode::kNotFound, "schedule", "there is none");
  EXPECT_EQ(Run({"schedule", "pause", "gone"}).code, kExitNotFound);
}

// ---- help and completion

// LL_UPDATE_GOLDEN=1 rewrites the files.
TEST_F(CliTest, HelpIsAsInTheGoldenFiles) {
  const std::vector<std::vector<std::string>> commands = {{},
                                                          {"submit"},
                                                          {"plan"},
                                                          {"list"},
                                                          {"get"},
                                                          {"watch"},
                                                          {"logs"},
                                                          {"cancel"},
                                                          {"pause"},
                                                          {"resume"},
                                                          {"why"},
                                                          {"eval"},
                                                          {"eval", "perplexity"},
                                                          {"eval", "passkey"},
                                                          {"eval", "topics"},
                                                          {"merge"},
                                                          {"chat"},
                                                          {"queues", "set"},
                                                          {"schedule"},
                                                          {"schedule", "create"},
                                                          {"schedule", "show"},
                                                          {"workers", "drain"},
                                                          {"chat"},
                                                          {"workers"},
                                                          {"workers", "list"},
                                                          {"models"},
                                                          {"models", "list"},
                                                          {"models", "add"},
                                                          {"data"},
                                                          {"data", "list"},
                                                          {"data", "add"},
                                                          {"data", "pack"},
                                                          {"data", "doctor"},
                                                          {"version"},
                                                          {"completion"}};
  for (std::vector<std::string> command : commands) {
    std::string name = "llctl";
    for (const std::string& word : command) name += "_" + word;
    const std::string path = "tests/cli/golden/" + name + ".txt";
    command.push_back("--help");
    const Outcome run = Run(command);
    EXPECT_EQ(run.code, 0);
    if (std::getenv("LL_UPDATE_GOLDEN") != nullptr) {
      LL_ASSERT_OK(WriteFileAtomic(path, run.out));
    }
    LL_ASSERT_OK_AND_ASSIGN(const std::string golden, ReadFile(path));
    EXPECT_EQ(run.out, golden) << path << " (LL_UPDATE_GOLDEN=1 rewrites it)";
  }
}

TEST_F(CliTest, CompletionScriptsKnowEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Outcome run = Run({"completion", shell});
    EXPECT_EQ(run.code, 0);
    EXPECT_THAT(run.out, HasSubstr("perplexity"));
    EXPECT_THAT(run.out, HasSubstr("--context-length"));
  }
}

}  // namespace
}  // namespace ll
