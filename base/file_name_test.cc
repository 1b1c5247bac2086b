#include "base/file_name.h"

#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(FileNameTest, PlainNamesReachNowhereElse) {
  EXPECT_TRUE(IsPlainFileName("model-00001-of-00002.safetensors"));
  for (const char* name : {"", ".", "..", ".hidden", "a/b", "/a", "../a"})
    EXPECT_FALSE(IsPlainFileName(name)) << name;
  EXPECT_FALSE(IsPlainFileName(absl::string_view("a\0b", 3)));
}

}  // namespace
}  // namespace ll
