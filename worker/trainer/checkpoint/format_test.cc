#include "worker/trainer/checkpoint/format.h"

#include <unistd.h>

#include <string>

#include "base/file.h"
#include "base/sha256.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

class CheckpointFormat : public testing::Test {
 protected:
  SealedCheckpoint Write(int64_t step) {
    const std::string temporary = root_.path() + "/.writing-" + CheckpointName(step);
    EXPECT_TRUE(MakeDirs(temporary).ok());
    EXPECT_TRUE(WriteFileAtomic(temporary + "/weights", "weights of " + std::to_string(step)).ok());
    EXPECT_TRUE(WriteFileAtomic(temporary + "/state", "state").ok());
    return SealCheckpoint(temporary, root_.path(), step).value();
  }

  const TempDir root_;
};

TEST_F(CheckpointFormat, NamesRoundTrip) {
  EXPECT_EQ(CheckpointName(100), "step-000100");
  EXPECT_EQ(CheckpointStep("step-000100"), 100);
  EXPECT_EQ(CheckpointStep("step-1234567"), 1234567);
  EXPECT_EQ(CheckpointStep(".writing-step-000100"), std::nullopt);
  EXPECT_EQ(CheckpointStep("step-x"), std::nullopt);
}

TEST_F(CheckpointFormat, AFolderWithoutAnAdapterNamesItsNewestCheckpoint) {
  const std::string root = root_.path();
  Write(7);
  Write(12);
  EXPECT_THAT(
      NoAdapterIn("adapter", root),
      StatusIs(absl::StatusCode::kNotFound, "newest checkpoint is " + root + "/step-000012"));
  LL_ASSERT_OK(MakeDirs(root + "/out"));
  EXPECT_EQ(NoAdapterIn("adapter", root + "/out").message(),
            "adapter: expected a folder with adapter_config.json, found " + root + "/out");
  LL_ASSERT_OK(MakeDirs(root + "/out/checkpoints/step-000003"));
  EXPECT_THAT(NoAdapterIn("adapter", root + "/out"),
              StatusIs(absl::StatusCode::kNotFound, root + "/out/checkpoints/step-000003"));
  EXPECT_THAT(NoAdapterIn("adapter", root + "/none"),
              StatusIs(absl::StatusCode::kNotFound, "there is no such folder"));
}

TEST_F(CheckpointFormat, SealedFolderVerifiesAndIsFound) {
  const SealedCheckpoint sealed = Write(7);
  EXPECT_EQ(sealed.path, root_.path() + "/step-000007");
  LL_EXPECT_OK(VerifyCheckpoint(sealed.path, sealed.manifest_sha256));
  EXPECT_THAT(VerifyCheckpoint(sealed.path, std::string(64, '0')),
              StatusIs(absl::StatusCode::kFailedPrecondition, "as ordered"));
  LL_ASSERT_OK_AND_ASSIGN(const FoundCheckpoint found, FindNewestCheckpoint(root_.path()));
  EXPECT_EQ(found.step, 7);
  EXPECT_TRUE(found.skipped.empty());
}

// R9: whichever file of the newest checkpoint is damaged in whichever way, the one before it is
// taken, with a reason.
TEST_F(CheckpointFormat, EveryDamageFallsBackToThePreviousOne) {
  Write(1);
  for (const std::string& name : {std::string("weights"), std::string("state"),
                                  std::string(kManifestFile), std::string(kCompleteFile)}) {
    for (const std::string& damage :
         {std::string("flip"), std::string("truncate"), std::string("zero"), std::string("swap"),
          std::string("remove")}) {
      if (name == "state" && damage == "swap") continue;  // the same bytes: no damage
      SCOPED_TRACE(name + " " + damage);
      const std::string path = Write(2).path + "/" + name;
      LL_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(path));
      if (damage == "flip") bytes[bytes.size() / 2] ^= 1;
      if (damage == "zero") bytes.assign(bytes.size(), '\0');
      if (damage == "swap") bytes = ReadFile(root_.path() + "/step-000001/" + name).value();
      if (damage == "truncate") bytes.pop_back();
      if (damage == "truncate" && name == kCompleteFile) bytes.pop_back();
      LL_ASSERT_OK(WriteFileAtomic(path, bytes));
      if (damage == "remove") unlink(path.c_str());
      LL_ASSERT_OK_AND_ASSIGN(const FoundCheckpoint found, FindNewestCheckpoint(root_.path()));
      EXPECT_EQ(found.step, 1);
      ASSERT_EQ(found.skipped.size(), 1u);
      EXPECT_EQ(found.skipped[0].substr(0, 12), "step-000002:");
    }
  }
}

TEST_F(CheckpointFormat, AWholeCheckpointUnderAnotherOnesNameIsNone) {
  Write(1);
  LL_ASSERT_OK(RenameDurably(Write(2).path, root_.path() + "/step-000003"));
  LL_ASSERT_OK_AND_ASSIGN(const FoundCheckpoint found, FindNewestCheckpoint(root_.path()));
  EXPECT_EQ(found.step, 1);
  ASSERT_EQ(found.skipped.size(), 1u);
  EXPECT_EQ(found.skipped[0], "step-000003: MANIFEST.json: expected step 3, found step 2");
}

TEST_F(CheckpointFormat, PruneKeepsTheNewestAndSweepsLeftovers) {
  for (const int64_t step : {10, 20, 30, 40, 90}) Write(step);
  LL_ASSERT_OK(MakeDirs(root_.path() + "/.writing-step-000050"));
  LL_ASSERT_OK(MakeDirs(root_.path() + "/.removing-step-000005"));
  LL_ASSERT_OK(WriteFileAtomic(SharedMark(root_.path(), 17), ""));
  LL_ASSERT_OK_AND_ASSIGN(
      auto removed, PruneCheckpoints(root_.path(), /*newest_step=*/40, {2, 0}, /*in_use=*/{10}));
  EXPECT_THAT(removed, testing::ElementsAre(20));
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(root_.path()));
  EXPECT_THAT(names,
              testing::ElementsAre("step-000010", "step-000030", "step-000040", "step-000090"));
  LL_ASSERT_OK_AND_ASSIGN(removed, PruneCheckpoints(root_.path(), 40, {1, 30}));
  LL_ASSERT_OK_AND_ASSIGN(names, ListDir(root_.path()));
  EXPECT_THAT(names, testing::ElementsAre("step-000030", "step-000040", "step-000090"));
}

TEST(ManifestTest, NamesStayInTheFolder) {
  LL_ASSERT_OK_AND_ASSIGN(const auto files,
                          ParseManifest(R"({"files": {"a": {"size_bytes": 3, "sha256": "00"}}})"));
  ASSERT_EQ(files.size(), 1u);
  EXPECT_EQ(files[0].size_bytes, 3);
  constexpr auto kDamaged = absl::StatusCode::kFailedPrecondition;
  for (const char* name : {"../a", "/a", "..", ".hidden", "", "a\\u0000b"}) {
    const std::string text =
        std::string(R"({"files": {")") + name + R"(": {"size_bytes": 3, "sha256": "00"}}})";
    EXPECT_THAT(ParseManifest(text), StatusIs(kDamaged, "of every file")) << name;
  }
  EXPECT_THAT(ParseManifest("{"), StatusIs(kDamaged, "MANIFEST.json: expected a JSON object"));
  EXPECT_THAT(ParseManifest(R"({"files": [1]})"), StatusIs(kDamaged, "\"files\", an object"));
  EXPECT_THAT(ParseManifest(R"({"files": {"a": {"size_bytes": -1, "sha256": ""}}})"),
              StatusIs(kDamaged, "size_bytes"));
}

TEST_F(CheckpointFormat, NoFolderMeansNoCheckpoint) {
  LL_ASSERT_OK_AND_ASSIGN(const FoundCheckpoint found,
                          FindNewestCheckpoint(root_.path() + "/none"));
  EXPECT_EQ(found.path, "");
}

}  // namespace
}  // namespace ll
