// Errors, addresses, lists, help: what belongs to no single command.
#include <sys/stat.h>

#include "llctl/cli_case.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

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
      {{"--timeout", "nan", "list"}, "", "expected a number from 0.001 to 86400, found nan"},
      {{"--timeout", "1e300", "list"}, "", "found 1e300"},
      {{"top", "--interval", "nan"}, "", "expected a number from 0.2 to 3600, found nan"},
      {{"cancel", "job-000000000001", "--reason", "a\xff"}, "reason", "expected UTF-8"},
      {{"list", "--label", "a=\xff"}, "labels", "expected UTF-8"},
      {{"schedule", "create", "\xff", "--cron", "@daily", "--model", "7b"}, "name", "UTF-8"},
      {{"frobnicate"}, "", "frobnicate"},
      {{"subimt"}, "", "did you mean submit?"},
      {{"workers", "lsit"}, "", "did you mean list?"},
      {{"list", "--stat", "x"}, "", "did you mean --state?"},
      {{}, "", "expected a command: submit, plan"},
      {{"list", "--coordinator", "nowhere"}, "coordinator", "HOST:PORT"},
      {{"list", "--coordinator", "h:99999"}, "coordinator", "a port up to 65535, found h:99999"},
      {{"list", "--token-file", "/nowhere/token"}, "token-file", "token-file: /nowhere/token"},
      {{"list", "--ca", "/nowhere/ca.pem"}, "ca", "No such file"},
      {{"list", "--ca", not_yaml}, "ca", "in PEM"},
      {{"list", "--token-file", not_yaml}, "token-file", "everybody on this host may read"},
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
  const std::string file = Write("other", "from-file\n");
  ASSERT_EQ(chmod(file.c_str(), 0600), 0);
  EXPECT_EQ(Run({"submit", "--model", "7b", "--token-file", file}).code, 0);
  EXPECT_EQ(coordinator_.authorization, "Bearer from-file");
}

TEST_F(CliTest, ATokenThatCannotBeSentIsOneLine) {
  for (const char* token : {"s3c\nret", "s3c ret", "s3c\x01ret"}) {
    variables_["LLCTL_TOKEN"] = token;
    const Outcome run = Run({"list"});
    EXPECT_EQ(run.code, kExitUsage);
    EXPECT_THAT(run.err, StartsWith("llctl: error: token: expected printable characters"));
    EXPECT_THAT(run.err, Not(HasSubstr("s3c")));
  }
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
  const std::string checkpoints = Run({"checkpoints", "job-000000000001"}).out;
  EXPECT_THAT(checkpoints, testing::HasSubstr("/jobs/job-1/e0002/checkpoints/step-000200"));
  EXPECT_THAT(checkpoints, testing::HasSubstr("1.2500"));
  EXPECT_THAT(checkpoints, testing::HasSubstr("s3://bucket/job-1/e0001/step-000100"));
  EXPECT_THAT(checkpoints, testing::Not(testing::HasSubstr("/jobs/job-1/e0001")));  // removed
  const auto json =
      nlohmann::json::parse(Run({"-o", "json", "checkpoints", "job-000000000001"}).out);
  ASSERT_EQ(json.size(), 2u);
  EXPECT_EQ(json[0]["step"], 200);
  EXPECT_EQ(json[1]["kept"], "multiple of 100");
  EXPECT_THAT(Run({"workers", "list"}).out, HasSubstr("2 x cpu, 8 GB each"));
  EXPECT_EQ(nlohmann::json::parse(Run({"workers", "list", "-o", "json"}).out)[0]["worker"], "w1");
  EXPECT_EQ(Run({"cancel", "job-00000000000a", "job-00000000000b", "--reason", "wrong data"}).code,
            0);
  EXPECT_EQ(Run({"pause", "job-00000000000a"}).code, 0);
  EXPECT_EQ(Run({"resume", "job-00000000000a"}).code, 0);
  EXPECT_THAT(
      coordinator_.controls,
      ElementsAre("cancel job-00000000000a wrong data", "cancel job-00000000000b wrong data",
                  "pause job-00000000000a", "resume job-00000000000a"));
  EXPECT_THAT(Run({"version"}).out, HasSubstr("ll-coordinator 9.9.9 (store sqlite, term 3)"));
  coordinator_.Stop();
  EXPECT_EQ(Run({"version"}).code, 0);
  EXPECT_EQ(Run({"version", "--client"}).err, "");
  const auto flag = Run({"--version"});
  EXPECT_EQ(flag.code, 0);
  EXPECT_EQ(flag.out, Run({"version", "--client"}).out);
}

TEST_F(CliTest, ModelsAddSendsTheConfigWhereItCanBeRead) {
  Write("config.json", R"({"model_type": "llama"})");
  EXPECT_EQ(Run({"models", "add", "tiny", folder_.path()}).code, 0);
  EXPECT_EQ(Run({"models", "add", "70b", "/weights/elsewhere"}).code, 0);
  ASSERT_EQ(coordinator_.models_added.size(), 2u);
  EXPECT_EQ(coordinator_.models_added[0].config_json(), R"({"model_type": "llama"})");
  EXPECT_EQ(coordinator_.models_added[1].config_json(), "");
}

// ---- help

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
                                                          {"doctor"},
                                                          {"describe"},
                                                          {"top"},
                                                          {"plot"},
                                                          {"export"},
                                                          {"man"},
                                                          {"checkpoints"},
                                                          {"verify"},
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

}  // namespace
}  // namespace ll
