#include "base/lfs_pointer.h"

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

TEST(LfsPointerTest, IsToldFromTheFileItself) {
  const TempDir dir;
  const std::string path = dir.path() + "/model.safetensors";
  LL_EXPECT_OK(CheckNotLfsPointer(path));  // whoever opens it says that it is missing
  LL_ASSERT_OK(WriteFileAtomic(path, std::string(5000, 'x')));
  LL_EXPECT_OK(CheckNotLfsPointer(path));
  LL_ASSERT_OK(WriteFileAtomic(
      path, "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n"));
  EXPECT_THAT(CheckNotLfsPointer(path),
              StatusIs(absl::StatusCode::kInvalidArgument, "a pointer of git-lfs"));
}

}  // namespace
}  // namespace ll
