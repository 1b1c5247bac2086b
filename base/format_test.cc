#include "base/format.h"

#include "base/counted.h"
#include "base/utf8.h"
#include "gtest/gtest.h"

namespace ll {
namespace {
TEST(FormatTest, Bytes) {
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(13'476'831'232), "13.5 GB");
}
TEST(FormatTest, Duration) {
  EXPECT_EQ(HumanDuration(absl::Milliseconds(3200)), "3.2s");
  EXPECT_EQ(HumanDuration(absl::Seconds(245)), "4m 05s");
  EXPECT_EQ(HumanDuration(absl::Hours(51)), "2d 3h");
}
TEST(FormatTest, Count) {
  EXPECT_EQ(HumanCount(6'738'415'616), "6,738,415,616");
  EXPECT_EQ(HumanCount(-1000), "-1,000");
  EXPECT_EQ(HumanCount(12), "12");
}
TEST(FormatTest, CountedThings) {
  EXPECT_EQ(Counted(1, "slot"), "1 slot");
  EXPECT_EQ(Counted(0, "slot"), "0 slots");
  EXPECT_EQ(Counted(12'000, "token"), "12,000 tokens");
}
TEST(CutTextTest, NoCharacterIsCutInTwo) {
  const std::string text = "a\xc3\xa9\xe2\x82\xac";  // "aé€"
  const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6};
  for (size_t most = 0; most < 8; ++most)
    EXPECT_EQ(CutText(text, most).size(), whole[most]) << most;
  EXPECT_EQ(CutText("\x80\x80", 1), "") << "of what is no UTF-8 at all";
}

}  // namespace
}  // namespace ll
