#include "model/plan/calibrate.h"

#include <sys/stat.h>
#include <filesystem>
#include <fstream>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {
using ::testing::HasSubstr;

const absl::Time kNow = absl::FromCivil(absl::CivilSecond(2026, 11, 22, 12), absl::UTCTimeZone());

class CalibrateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.trainer = folder_.path() + "/trainer";
    options_.device = "cpu";
  }

  static std::string Json(const std::string& device, const std::string& host,
                          const std::string& time, double gemm, const std::string& build = "") {
    return nlohmann::json{{"device", device},
                          {"host", host},
                          {"time", time},
                          {"build", build.empty() ? ThisBuild() : build},
                          {"gemm_flops", gemm},
                          {"attention_flops", 1e11},
                          {"memory_bandwidth", 1e10},
                          {"link_bandwidth", 1e9}}
        .dump();
  }
  void Keep(const std::string& name, const std::string& text) {
    std::filesystem::create_directories(folder_.path() + "/probes");
    std::ofstream(folder_.path() + "/probes/" + name) << text;
  }
  // A program in the trainer's place that prints `text`, counts its runs and exits with `code`.
  void Trainer(const std::string& text, int code = 0) {
    std::ofstream(folder_.path() + "/output") << text;
    std::ofstream(options_.trainer)
        << "#!/bin/sh\necho \"$@\" >> " << folder_.path() << "/runs\ncat " << folder_.path()
        << "/output\nexit " << code << "\n";
    chmod(options_.trainer.c_str(), 0755);
  }
  std::string Runs() { return ReadFile(folder_.path() + "/runs").value_or(""); }
  absl::StatusOr<CalibrateResult> Do() {
    return Calibrate(options_, folder_.path() + "/probes", kNow);
  }

  const TempDir folder_;
  CalibrateOptions options_;
};

TEST_F(CalibrateTest, MeasuresOnceAndKeepsIt) {
  Trainer(Json("cpu", ThisHost(), "2026-11-22T11:59:00Z", 3e11));
  LL_ASSERT_OK_AND_ASSIGN(CalibrateResult got, Do());
  EXPECT_EQ(got.reason, "it had not been measured");
  EXPECT_EQ(got.calibration.gemm, 3e11);
  EXPECT_TRUE(FileExists(got.path));
  EXPECT_EQ(Runs(), "probe --device cpu --threads 0\n");
  LL_ASSERT_OK_AND_ASSIGN(got, Do());
  EXPECT_EQ(got.reason, "");
  EXPECT_EQ(got.calibration.gemm, 3e11);
  EXPECT_EQ(Runs(), "probe --device cpu --threads 0\n") << "it was kept";
  options_.again = true;
  LL_ASSERT_OK_AND_ASSIGN(got, Do());
  EXPECT_EQ(got.reason, "asked for");
}

TEST_F(CalibrateTest, NeverNowTakesWhatIsKeptHoweverOld) {
  Trainer(Json("cpu", ThisHost(), "2026-11-22T11:59:00Z", 3e11));
  options_.never_now = true;
  EXPECT_EQ(Do().status().code(), absl::StatusCode::kNotFound);
  Keep("kept.json", Json("cpu", ThisHost(), "2001-01-01T00:00:00Z", 1e11));
  LL_ASSERT_OK_AND_ASSIGN(const CalibrateResult got, Do());
  EXPECT_EQ(got.calibration.gemm, 1e11);
  EXPECT_EQ(Runs(), "");
}

TEST_F(CalibrateTest, MeasuresAgainWhatIsStale) {
  Trainer(Json("cpu", ThisHost(), "2026-11-22T11:59:00Z", 3e11));
  const std::tuple<std::string, std::string, const char*> kCases[] = {
      {"2026-10-01T00:00:00Z", "", "days old"},
      {"2027-01-01T00:00:00Z", "", "future"},
      {"yesterday", "", "cannot be read"},
      {"2026-11-20T00:00:00Z", "0.0.1", "version 0.0.1"}};
  for (const auto& [time, build, why] : kCases) {
    std::filesystem::remove_all(folder_.path() + "/probes");
    Keep("kept.json", Json("cpu", ThisHost(), time, 1e11, build));
    LL_ASSERT_OK_AND_ASSIGN(const CalibrateResult got, Do());
    EXPECT_THAT(got.reason, HasSubstr(why));
    EXPECT_EQ(got.calibration.gemm, 3e11);
  }
  // Another host's, or one that cannot be read, is none.
  for (const std::string& text :
       {Json("cpu", "elsewhere", "2026-11-20T00:00:00Z", 1e11), std::string("{")}) {
    std::filesystem::remove_all(folder_.path() + "/probes");
    Keep("kept.json", text);
    LL_ASSERT_OK_AND_ASSIGN(const CalibrateResult got, Do());
    EXPECT_EQ(got.reason, "it had not been measured");
  }
}

TEST_F(CalibrateTest, AFailedProbeIsAnErrorAndKeepsNothing) {
  const auto missing = Do();
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("there is no"));
  Trainer("{}", 3);
  EXPECT_THAT(Do().status().message(), HasSubstr("exit code 3"));
  Trainer("not JSON");
  EXPECT_FALSE(Do().ok());
  Trainer(R"({"device":"cpu","gemm_flops":-1})");
  EXPECT_THAT(Do().status().message(), HasSubstr("gemm_flops"));
  EXPECT_FALSE(IsDirectory(folder_.path() + "/probes"));
}

TEST_F(CalibrateTest, PlansTakeOtherHostsGpusButNotTheirCpu) {
  LL_ASSERT_OK_AND_ASSIGN(auto kept, KeptCalibrations(folder_.path() + "/probes", "here"));
  EXPECT_TRUE(kept.empty());
  Keep("cpu@there.json", Json("cpu", "there", "2026-11-20T00:00:00Z", 1e11));
  Keep("H100@there.json", Json("H100", "there", "2026-11-20T00:00:00Z", 6e14));
  Keep("H100@yonder.json", Json("H100", "yonder", "2026-11-21T00:00:00Z", 7e14));
  LL_ASSERT_OK_AND_ASSIGN(kept, KeptCalibrations(folder_.path() + "/probes", "here"));
  EXPECT_EQ(kept.count("cpu"), 0u);
  EXPECT_EQ(kept.at("H100").gemm, 7e14) << "the newest";
  Keep("cpu@here.json", Json("cpu", "here", "2026-11-01T00:00:00Z", 2e11));
  LL_ASSERT_OK_AND_ASSIGN(kept, KeptCalibrations(folder_.path() + "/probes", "here"));
  EXPECT_EQ(kept.at("cpu").gemm, 2e11);
}

TEST(ProbeFolderTest, IsInTheUsersCache) {
  std::map<std::string, std::string> variables = {{"HOME", "/u"}};
  const auto read = [&](const std::string& name) { return variables[name]; };
  EXPECT_EQ(ProbeFolder(read), "/u/.cache/ll/probes");
  variables["XDG_CACHE_HOME"] = "/c";
  EXPECT_EQ(ProbeFolder(read), "/c/ll/probes");
}

}  // namespace
}  // namespace ll
