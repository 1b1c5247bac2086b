#include "rpc/secret_file.h"

#include <sys/stat.h>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string FileWith(absl::string_view text, mode_t mode) {
  static const TempDir dir;
  static int count = 0;
  const std::string path = dir.path() + "/" + std::to_string(++count);
  EXPECT_THAT(WriteFileAtomic(path, text, 0600), IsOk());
  EXPECT_EQ(chmod(path.c_str(), mode), 0);
  return path;
}

TEST(BearerToken, IsReadInPrivateAndNeverRepeated) {
  EXPECT_EQ(ReadBearerToken(FileWith("\n s3cret\n", 0640)).value_or(""), "s3cret");
  const std::string open = FileWith("s3cret\n", 0644);
  const auto refused = ReadBearerToken(open);
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, "everybody"));
  EXPECT_EQ(ErrorField(refused.status()), "token-file");
  EXPECT_THAT(ErrorHint(refused.status()), HasSubstr("chmod o-rwx " + open));
  for (const std::string& text :
       {std::string(), std::string(" \n"), std::string(100'000, 's'), std::string("s3cret twice"),
        std::string("s3cret\nmore"), std::string("s3c\0ret", 7), std::string("s3cr\xc3\xa9t"),
        std::string(20'000, 's')}) {
    const auto got = ReadBearerToken(FileWith(text, 0600));
    EXPECT_THAT(got, StatusIs(absl::StatusCode::kInvalidArgument, "token"));
    EXPECT_THAT(std::string(got.status().message()), Not(HasSubstr("s3c")));
  }
  EXPECT_THAT(ReadBearerToken("/nowhere/token"), StatusIs(absl::StatusCode::kNotFound, "nowhere"));
  EXPECT_THAT(ReadBearerToken("/tmp"), StatusIs(absl::StatusCode::kInvalidArgument, "a folder"));
}

TEST(BearerToken, APipeIsNotWaitedFor) {
  const std::string path = FileWith("", 0600) + ".pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0644), 0);
  EXPECT_THAT(ReadBearerToken(path), StatusIs(absl::StatusCode::kInvalidArgument, "a pipe"));
}

TEST(FileOfRights, IsNotForAllToWrite) {
  LL_EXPECT_OK(CheckNotForAllToWrite("", "tokens"));
  LL_EXPECT_OK(CheckNotForAllToWrite("/nowhere/tokens", "tokens"));
  LL_EXPECT_OK(CheckNotForAllToWrite(FileWith("x", 0664), "tokens"));
  const std::string path = FileWith("x", 0666);
  const absl::Status refused = CheckNotForAllToWrite(path, "tokens");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition, "may write " + path));
  EXPECT_EQ(ErrorField(refused), "tokens");
}

}  // namespace
}  // namespace ll
