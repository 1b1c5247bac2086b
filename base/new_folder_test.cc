#include "base/new_folder.h"

#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class NewFolderTest : public testing::Test {
 protected:
  std::vector<std::string> Names() { return *ListDir(dir_.path()); }

  const TempDir dir_;
  const std::string out_ = dir_.path() + "/out";
};

TEST_F(NewFolderTest, AppearsWholeAtCommit) {
  LL_ASSERT_OK_AND_ASSIGN(NewFolder folder, NewFolder::Create("--out", out_ + "/", false));
  LL_ASSERT_OK(WriteFileAtomic(folder.partial() + "/f", "new"));
  EXPECT_FALSE(FileExists(out_));
  LL_ASSERT_OK(folder.Commit());
  EXPECT_THAT(Names(), ElementsAre("out"));
  EXPECT_EQ(*ReadFile(out_ + "/f"), "new");
}

TEST_F(NewFolderTest, WithoutCommitNothingIsLeft) {
  { LL_ASSERT_OK(NewFolder::Create("--out", out_, false)); }
  EXPECT_THAT(Names(), IsEmpty());
}

TEST_F(NewFolderTest, AnExistingFolderIsRefusedOrReplaced) {
  LL_ASSERT_OK(MakeDirs(out_));
  LL_ASSERT_OK(WriteFileAtomic(out_ + "/old", "old"));
  EXPECT_THAT(NewFolder::Create("--out", out_, false),
              StatusIs(absl::StatusCode::kAlreadyExists, "--out: expected a folder that does not"));
  LL_ASSERT_OK_AND_ASSIGN(NewFolder folder, NewFolder::Create("--out", out_, true));
  LL_ASSERT_OK(WriteFileAtomic(folder.partial() + "/new", "new"));
  EXPECT_EQ(*ReadFile(out_ + "/old"), "old");
  LL_ASSERT_OK(folder.Commit());
  EXPECT_THAT(*ListDir(out_), ElementsAre("new"));
  EXPECT_THAT(Names(), ElementsAre("out"));
}

TEST_F(NewFolderTest, AFolderThatCameMeanwhileIsNotReplaced) {
  LL_ASSERT_OK_AND_ASSIGN(NewFolder folder, NewFolder::Create("--out", out_, false));
  LL_ASSERT_OK(MakeDirs(out_ + "/sub"));
  EXPECT_THAT(folder.Commit(), StatusIs(absl::StatusCode::kAlreadyExists, "--out"));
  EXPECT_TRUE(FileExists(out_ + "/sub"));
}

TEST_F(NewFolderTest, TheDeadsLeftoversGoTheLivingsStay) {
  LL_ASSERT_OK(MakeDirs(out_ + ".partial-1/sub"));
  LL_ASSERT_OK(MakeDirs(dir_.path() + "/other.partial-1"));
  LL_ASSERT_OK_AND_ASSIGN(NewFolder folder, NewFolder::Create("--out", out_, false));
  EXPECT_FALSE(FileExists(out_ + ".partial-1"));
  EXPECT_TRUE(FileExists(dir_.path() + "/other.partial-1"));
  EXPECT_THAT(NewFolder::Create("--out", out_, false),
              StatusIs(absl::StatusCode::kFailedPrecondition, "another process is writing"));
  EXPECT_TRUE(FileExists(folder.partial()));
  LL_ASSERT_OK(folder.Commit());
}

TEST_F(NewFolderTest, AProcessKilledBeforeItsCommitLeavesTheOldFolder) {
  LL_ASSERT_OK(MakeDirs(out_));
  const pid_t child = fork();
  if (child == 0) {
    auto folder = NewFolder::Create("--out", out_, true);
    WriteFileAtomic(folder->partial() + "/half", "h").IgnoreError();
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(Names().size(), 2u);
  EXPECT_THAT(*ListDir(out_), IsEmpty());
  LL_ASSERT_OK_AND_ASSIGN(NewFolder folder, NewFolder::Create("--out", out_, true));
  LL_ASSERT_OK(folder.Commit());
  EXPECT_THAT(Names(), ElementsAre("out"));
}

TEST_F(NewFolderTest, NoFolderOfThatName) {
  for (const char* bad : {"", "/", ".", "..", "a/.."}) {
    EXPECT_THAT(NewFolder::Create("--out", bad, false),
                StatusIs(absl::StatusCode::kInvalidArgument, "--out"))
        << bad;
  }
}

}  // namespace
}  // namespace ll
