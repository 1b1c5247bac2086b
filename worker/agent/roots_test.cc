#include "worker/agent/roots.h"

#include <unistd.h>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "nlohmann/json.hpp"
#include "worker/agent/gpu_probe.h"
#include "worker/agent/spec_json.h"

namespace ll {
namespace {

class RootsTest : public testing::Test {
 protected:
  void SetUp() override {
    LL_ASSERT_OK(MakeDirs(base_ + "/weights/llama"));
    LL_ASSERT_OK(MakeDirs(base_ + "/weights-secret"));
    LL_ASSERT_OK(WriteFileAtomic(base_ + "/secret.bin", "x"));
    ASSERT_EQ(symlink((base_ + "/secret.bin").c_str(), (base_ + "/weights/escape.bin").c_str()), 0);
    LL_ASSERT_OK(AddRoot("weights=" + base_ + "/weights", roots_));
  }
  const TempDir dir_;
  const std::string base_ = dir_.path();
  Roots roots_;
};

TEST_F(RootsTest, PathsBeneathARootByPathAndByName) {
  EXPECT_EQ(*ResolveBeneath(roots_, "model", base_ + "/weights/llama"), base_ + "/weights/llama");
  EXPECT_EQ(*ResolveBeneath(roots_, "model", base_ + "/weights/../weights/llama/"),
            base_ + "/weights/llama");
  EXPECT_EQ(*ResolveBeneath(roots_, "model", "weights/llama"), base_ + "/weights/llama");
  EXPECT_EQ(*ResolveBeneath(roots_, "model", "weights"), base_ + "/weights");
}

TEST_F(RootsTest, NothingLeadsOut) {
  for (const std::string& path :
       {base_ + "/secret.bin", base_ + "/weights/../secret.bin", base_ + "/weights/escape.bin",
        std::string("weights/../secret.bin"), std::string("weights/escape.bin"),
        base_ + "/weights-secret", std::string("/etc/passwd"), std::string("llama"),
        std::string("")}) {
    const auto resolved = ResolveBeneath(roots_, "data", path);
    EXPECT_THAT(resolved, StatusIs(absl::StatusCode::kPermissionDenied, "data")) << path;
    EXPECT_EQ(ErrorField(resolved.status()), "data") << path;
  }
  EXPECT_THAT(ResolveBeneath(roots_, "data", "weights/none"),
              StatusIs(absl::StatusCode::kNotFound, "data"));
}

TEST_F(RootsTest, SpecKeysAreResolvedInPlace) {
  v1::JobSpec spec;
  spec.set_model("weights/llama");
  spec.set_name("weights/llama");
  LL_ASSERT_OK(ResolveSpecPaths(roots_, spec));
  EXPECT_EQ(spec.model(), base_ + "/weights/llama");
  EXPECT_EQ(spec.name(), "weights/llama");
  EXPECT_FALSE(spec.has_data());
  spec.set_eval_data("/etc/passwd");
  EXPECT_THAT(ResolveSpecPaths(roots_, spec),
              StatusIs(absl::StatusCode::kPermissionDenied, "eval_data"));
  LL_EXPECT_OK(ResolveSpecPaths({}, spec));
}

TEST_F(RootsTest, AFolderToBeMadeStaysBeneathARoot) {
  v1::JobSpec spec;
  spec.set_merge_out("merged");  // a name in the job's folder
  LL_ASSERT_OK(ResolveSpecPaths(roots_, spec));
  EXPECT_EQ(spec.merge_out(), "merged");
  spec.set_merge_out(base_ + "/weights/../weights/new");
  LL_ASSERT_OK(ResolveSpecPaths(roots_, spec));
  EXPECT_EQ(spec.merge_out(), base_ + "/weights/new");
  for (const std::string& out : {std::string("/new"), base_ + "/new", base_ + "/weights/../new"}) {
    spec.set_merge_out(out);
    EXPECT_THAT(ResolveSpecPaths(roots_, spec),
                StatusIs(absl::StatusCode::kPermissionDenied, "merge_out"))
        << out;
  }
  for (const char* name : {"/weights/..", "/weights/", "/weights/.hidden"}) {
    spec.set_merge_out(base_ + name);
    EXPECT_THAT(ResolveSpecPaths(roots_, spec),
                StatusIs(absl::StatusCode::kInvalidArgument, "merge_out"))
        << name;
  }
}

TEST_F(RootsTest, CopiesStayBeneathARootToo) {
  v1::JobSpec spec;
  spec.set_checkpoint_uri("s3://bucket/prefix");
  LL_ASSERT_OK(ResolveSpecPaths(roots_, spec));
  EXPECT_EQ(spec.checkpoint_uri(), "s3://bucket/prefix");
  spec.set_checkpoint_uri(base_ + "/weights/copies/job-1");  // neither folder is there yet
  LL_ASSERT_OK(ResolveSpecPaths(roots_, spec));
  EXPECT_EQ(spec.checkpoint_uri(), base_ + "/weights/copies/job-1");
  for (const char* outside : {"/copies", "/weights/../copies", "/weights/x/../../../copies"}) {
    spec.set_checkpoint_uri(base_ + outside);
    EXPECT_FALSE(ResolveSpecPaths(roots_, spec).ok()) << outside;
  }
}

TEST_F(RootsTest, BadRootFlags) {
  for (const std::string& text :
       {std::string("weights"), std::string("=/x"), std::string("x="), std::string("x=/none/there"),
        "x=" + base_ + "/secret.bin", "weights=" + base_ + "/weights"}) {
    EXPECT_FALSE(AddRoot(text, roots_).ok()) << text;
  }
}

TEST(SpecJson, GivenKeysWithNumbersAsNumbers) {
  v1::JobSpec spec;
  spec.set_model("m");
  spec.set_max_steps(9007199254740993);  // would lose its last digit as a double
  spec.set_learning_rate(2e-5);
  spec.set_shuffle(false);
  spec.add_trainable("embed");
  spec.add_stages(1024);
  (*spec.mutable_labels())["team"] = "nlp";
  const auto json = nlohmann::json::parse(SpecToJson(spec));
  EXPECT_EQ(json,
            nlohmann::json::parse(R"({"model":"m","max_steps":9007199254740993,"learning_rate":2e-5,
      "shuffle":false,"trainable":["embed"],"stages":[1024],"labels":{"team":"nlp"}})"));
}

TEST(GpuProbe, ReadsTheDriversListAndNamesKinds) {
  LL_ASSERT_OK_AND_ASSIGN(
      auto gpus, ParseGpuList("0, NVIDIA A100-SXM4-80GB, 81920\n1, NVIDIA H100 80GB HBM3, 81559\n"
                              "2, NVIDIA A100-PCIE-40GB, 40960\n3, NVIDIA H200, 143771\n"
                              "4, NVIDIA GeForce RTX 4090, 24564\n"
                              "5, Tesla V100-SXM2-32GB, 32768\n6, Tesla V100-PCIE-16GB, 16160\n"));
  ASSERT_EQ(gpus.size(), 7u);
  EXPECT_EQ(gpus[0].kind(), "A100-80");
  EXPECT_EQ(gpus[0].memory_bytes(), int64_t{81920} << 20);
  EXPECT_EQ(gpus[1].kind(), "H100");
  EXPECT_EQ(gpus[2].kind(), "A100-40");
  EXPECT_EQ(gpus[3].kind(), "H200");
  EXPECT_EQ(gpus[4].kind(), "GeForce RTX 4090");
  EXPECT_EQ(gpus[5].kind(), "V100-32");
  EXPECT_EQ(gpus[6].kind(), "V100-16");
  LL_ASSERT_OK_AND_ASSIGN(auto two, SelectGpus(gpus, "3,0"));
  EXPECT_EQ(two[0].index(), 3);
  for (const char* bad : {"9", "0,0", "x", ""}) EXPECT_FALSE(SelectGpus(gpus, bad).ok()) << bad;
  EXPECT_FALSE(ParseGpuList("No devices were found\n").ok());
}

TEST(GpuProbe, CpuSlotsShareTheMemory) {
  const auto two = CpuSlots(2, 0), four = CpuSlots(4, 0);
  EXPECT_EQ(two[1].kind(), "cpu");
  EXPECT_NEAR(static_cast<double>(two[0].memory_bytes()),
              2.0 * static_cast<double>(four[3].memory_bytes()), 8);
  EXPECT_EQ(CpuSlots(1, 123)[0].memory_bytes(), 123);
}

}  // namespace
}  // namespace ll
