#include "base/file.h"

#include "base/field_error.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

class FileTest : public testing::Test {
 protected:
  void SetUp() override { LL_ASSERT_OK(MakeDirs(dir_.path() + "/a/b")); }
  const TempDir dir_;
};

TEST_F(FileTest, AtomicWriteReplacesAndLeavesNoTemporary) {
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/f", "one"));
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/f", "two"));
  LL_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir_.path() + "/f"));
  EXPECT_EQ(bytes, "two");
  LL_ASSERT_OK_AND_ASSIGN(auto names, ListDir(dir_.path()));
  EXPECT_THAT(names, testing::ElementsAre("a", "f"));
}

TEST_F(FileTest, ErrorsNameThePath) {
  EXPECT_THAT(ReadFile(dir_.path() + "/absent"), StatusIs(absl::StatusCode::kNotFound, "absent"));
  EXPECT_EQ(ErrorField(ReadFile(dir_.path() + "/absent").status()), dir_.path() + "/absent");
  EXPECT_THAT(WriteFileAtomic(dir_.path() + "/no/such", "x"),
              StatusIs(absl::StatusCode::kNotFound, "/no/such"));
  // Whoever named it is to name another; it is not the host that fails.
  LL_ASSERT_OK(WriteFileAtomic(dir_.path() + "/f", "one"));
  for (const std::string& path : {dir_.path() + "/f/x", dir_.path() + "/" + std::string(300, 'x')})
    EXPECT_THAT(MakeDirs(path), StatusIs(absl::StatusCode::kInvalidArgument, path)) << path;
}

TEST_F(FileTest, AppendKeepsWhatWasThereAndCountsBytes) {
  LL_ASSERT_OK(AppendFile(dir_.path() + "/log", "ab", true));
  LL_ASSERT_OK_AND_ASSIGN(AppendOnlyFile file, AppendOnlyFile::Open(dir_.path() + "/log"));
  EXPECT_EQ(file.size_bytes(), 2);
  LL_ASSERT_OK(file.Append("cd"));
  LL_ASSERT_OK(file.Sync());
  EXPECT_EQ(file.size_bytes(), 4);
  LL_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir_.path() + "/log"));
  EXPECT_EQ(bytes, "abcd");
}

TEST_F(FileTest, FullDiskIsResourceExhaustedAndPoisonsTheFile) {
  LL_ASSERT_OK_AND_ASSIGN(AppendOnlyFile file, AppendOnlyFile::Open("/dev/full"));
  EXPECT_THAT(file.Append("x"), StatusIs(absl::StatusCode::kResourceExhausted, "/dev/full"));
  EXPECT_THAT(file.Sync(), StatusIs(absl::StatusCode::kResourceExhausted, "/dev/full"));
}

}  // namespace
}  // namespace ll
