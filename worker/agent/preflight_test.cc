#include "worker/agent/preflight.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "rpc/http_server.h"
#include "worker/agent/capture.h"

namespace ll {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::Not;

class PreflightTest : public testing::Test {
 protected:
  std::string Program(const std::string& script) {
    const std::string path = dir_.path() + "/program";
    LL_EXPECT_OK(WriteFileAtomic(path, "#!/bin/sh\n" + script));
    chmod(path.c_str(), 0755);
    return path;
  }
  const TempDir dir_;
};

TEST_F(PreflightTest, AFolderIsMeasuredAndLeftAsItWas) {
  const std::string folder = dir_.path() + "/new/work";
  const PreflightCheck check = CheckFolder("work dir", folder, 1);
  EXPECT_NE(check.result, PreflightCheck::kFailed) << check.found;
  EXPECT_THAT(check.found, AllOf(HasSubstr("free, fsync"), HasSubstr(" ms")));
  const auto left = RealFiles().List(folder);
  ASSERT_THAT(left, IsOk());
  EXPECT_THAT(*left, ElementsAre());
}

TEST_F(PreflightTest, TooLittleSpaceFailsWithWhatIsNeeded) {
  const PreflightCheck check = CheckFolder("work dir", dir_.path(), int64_t{1} << 60);
  EXPECT_EQ(check.result, PreflightCheck::kFailed);
  EXPECT_THAT(check.fix, HasSubstr("at least"));
}

TEST_F(PreflightTest, AFileInTheFoldersPlaceFails) {
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/file", "x"));
  const PreflightCheck check = CheckFolder("work dir", dir_.path() + "/file", 1);
  EXPECT_EQ(check.result, PreflightCheck::kFailed);
  EXPECT_THAT(check.fix, Not(testing::IsEmpty()));
}

TEST_F(PreflightTest, ATakenPortFails) {
  auto taken = HttpServer::Start("127.0.0.1:0", {});
  ASSERT_THAT(taken, IsOk());
  const std::string address = (*taken)->address();
  const PreflightCheck check = CheckListen("metrics port", address);
  EXPECT_EQ(check.result, PreflightCheck::kFailed);
  EXPECT_THAT(check.fix, HasSubstr("--http"));
  taken->reset();
  EXPECT_EQ(CheckListen("metrics port", address).result, PreflightCheck::kOk);
}

TEST_F(PreflightTest, TheTrainerMustStartAndBeOfThisRelease) {
  const auto check = [&](const std::string& script) {
    return CheckTrainer(absl::OkStatus(), Program(script), "1.2.3");
  };
  EXPECT_EQ(check("echo 'll-trainer 1.2.3 (LibTorch 2)'").result, PreflightCheck::kOk);
  const PreflightCheck other = check("echo 'll-trainer 1.2.4 (LibTorch 2)'");
  EXPECT_EQ(other.result, PreflightCheck::kFailed);
  EXPECT_THAT(other.found, HasSubstr("expected ll-trainer 1.2.3, found ll-trainer 1.2.4"));
  EXPECT_EQ(check("true").result, PreflightCheck::kFailed);
  const PreflightCheck broken = check("exit 127");
  EXPECT_THAT(broken.found, HasSubstr("exit status 127"));
  EXPECT_THAT(broken.fix, HasSubstr("ldd"));
  const PreflightCheck missing =
      CheckTrainer(absl::NotFoundError("trainer: none"), dir_.path() + "/none", "1.2.3");
  EXPECT_EQ(missing.result, PreflightCheck::kFailed);
  EXPECT_EQ(missing.found, "trainer: none");
}

TEST_F(PreflightTest, CapturedOutputHasADeadline) {
  const auto run = CaptureOutput({Program("echo out; echo no >&2; kill -9 $$")}, absl::Seconds(20));
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->output, "out\n");
  EXPECT_EQ(run->exit_code, 137);
  const auto late = CaptureOutput({Program("exec sleep 60")}, absl::Milliseconds(200));
  EXPECT_EQ(late.status().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(PreflightTest, ACoordinatorThatIsAwayFailsAndTheClockIsNotMeasured) {
  ChannelConfig config;
  config.addresses = {"127.0.0.1:1"};
  const auto checks = CheckCoordinator(config, absl::Milliseconds(300));
  ASSERT_EQ(checks.size(), 2);
  EXPECT_EQ(checks[0].result, PreflightCheck::kFailed);
  EXPECT_THAT(checks[0].found, HasSubstr("127.0.0.1:1"));
  EXPECT_EQ(checks[1].result, PreflightCheck::kNotMeasured);
}

TEST_F(PreflightTest, SharedMemoryMattersForSeveralGpus) {
  // A folder that is no tmpfs of a gigabyte is needed by nobody else.
  const std::string small = "/sys/fs";
  EXPECT_EQ(CheckSharedMemory(small, true, 2).result, PreflightCheck::kFailed);
  EXPECT_EQ(CheckSharedMemory(small, true, 1).result, PreflightCheck::kOk);
  EXPECT_EQ(CheckSharedMemory(small, false, 8).result, PreflightCheck::kOk);
  EXPECT_EQ(CheckSharedMemory(dir_.path() + "/none", false, 1).result, PreflightCheck::kFailed);
}

TEST_F(PreflightTest, OpenFiles) {
  EXPECT_EQ(CheckOpenFiles(1023).result, PreflightCheck::kFailed);
  EXPECT_EQ(CheckOpenFiles(1024).result, PreflightCheck::kOk);
  EXPECT_EQ(CheckOpenFiles(-1).found, "unlimited");
}

TEST_F(PreflightTest, GpuHealth) {
  const auto checks = JudgeGpuHealth(
      "0, 34, 0, No, Not Active\n"
      "1, 34, 2, No, Not Active\n"
      "2, 34, 0, Yes, Not Active\n"
      "3, 34, 0, No, Active\n"
      "4, 91, [N/A], [N/A], Not Active\n"
      "5, 34, [N/A], [N/A], [N/A]\n"
      "what\n");
  std::vector<PreflightCheck::Result> results;
  for (const PreflightCheck& check : checks) results.push_back(check.result);
  using P = PreflightCheck;
  EXPECT_THAT(results, ElementsAre(P::kOk, P::kFailed, P::kFailed, P::kWarning, P::kWarning, P::kOk,
                                   P::kFailed));
  EXPECT_EQ(checks[1].name, "gpu 1");
  EXPECT_EQ(JudgeGpuHealth("")[0].result, P::kFailed);
}

TEST_F(PreflightTest, NcclBandwidth) {
  const PreflightCheck good =
      JudgeNcclBandwidth("# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 412.831 \n#\n");
  EXPECT_EQ(good.result, PreflightCheck::kOk);
  EXPECT_THAT(good.found, HasSubstr("412.8 GB/s"));
  EXPECT_EQ(JudgeNcclBandwidth("# Avg bus bandwidth    : 0").result, PreflightCheck::kFailed);
  EXPECT_EQ(JudgeNcclBandwidth("").result, PreflightCheck::kFailed);
}

TEST_F(PreflightTest, TableAndJsonSayTheSame) {
  const std::vector<PreflightCheck> checks = {
      {"one", PreflightCheck::kOk, "fine", ""},
      {"two", PreflightCheck::kNotMeasured, "no GPU", ""},
      {"three", PreflightCheck::kFailed, "bad", "mend it"},
  };
  EXPECT_FALSE(Passed(checks));
  EXPECT_TRUE(Passed({checks[0], checks[1]}));
  EXPECT_THAT(PreflightTable(checks),
              AllOf(HasSubstr("two             not measured  no GPU"), HasSubstr("fix: mend it")));
  const auto json = nlohmann::json::parse(PreflightJson(checks));
  EXPECT_EQ(json["passed"], false);
  EXPECT_EQ(json["checks"][2]["fix"], "mend it");
}

TEST(Preflight, WhatIsNoTextIsStillJson) {
  const auto json = nlohmann::json::parse(
      PreflightJson({{"work dir", PreflightCheck::kFailed, "/a\xff: cannot", "make it"}}));
  EXPECT_EQ(json["checks"][0]["found"], "/a\uFFFD: cannot");
}

}  // namespace
}  // namespace ll
