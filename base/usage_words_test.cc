#include "base/usage_words.h"

#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(UsageWordsTest, SaysWhatWasExpectedAndFound) {
  const std::pair<const char*, const char*> cases[] = {
      {"--top-p: Value 2 not in range 0.000000 to 1.000000",
       "--top-p: expected a number from 0 to 1, found 2"},
      {"--cpu-slots: Value abc not in range 1 to 1024",
       "--cpu-slots: expected a number from 1 to 1024, found abc"},
      {"--weight: Value -1 not in range 0.000000 to 17976931348623157081452742373170435.000000",
       "--weight: expected a number of at least 0, found -1"},
      {"Could not convert: --weight = abc", "--weight: expected a number, found abc"},
      {"--documents: foo not in {file,blank-line}",
       "--documents: expected one of file, blank-line, found foo"},
      {"--limit: At Most 1 required but received 2", "--limit: expected once, found 2 times"},
      {"--limit: 1 required N missing", "--limit: expected a value (N), found none"},
      {"--out is required", "--out is required"},
  };
  for (const auto& [given, wanted] : cases) EXPECT_EQ(UsageInWords(given), wanted);
}

}  // namespace
}  // namespace ll
