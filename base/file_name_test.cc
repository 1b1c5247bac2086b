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

TEST(FileNameTest, TextIsKnownByItsEnding) {
  for (const char* name : {"a.txt", "/d/a.jsonl", "a.ndjson", "a.json", "a.txt.gz", "a.jsonl.zst"})
    EXPECT_TRUE(IsTextFileName(name)) << name;
  for (const char* name : {"", "a.bin", "txt", "a.txt.bin", "/a.jsonl/b"})
    EXPECT_FALSE(IsTextFileName(name)) << name;
}

}  // namespace
}  // namespace ll
