#include "base/sha256.h"

#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

// Vectors of FIPS 180-4.
TEST(Sha256Test, KnownVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Sha256Test, FileEqualsBytesAndMissingFileIsNotFound) {
  const TempDir dir;
  const std::string path = dir.path() + "/file";
  const std::string bytes(3'000'000, 'x');
  LL_ASSERT_OK(WriteFileAtomic(path, bytes));
  LL_ASSERT_OK_AND_ASSIGN(std::string hash, Sha256HexOfFile(path));
  EXPECT_EQ(hash, Sha256Hex(bytes));
  EXPECT_THAT(Sha256HexOfFile(path + ".absent"), StatusIs(absl::StatusCode::kNotFound, "absent"));
}

}  // namespace
}  // namespace ll
