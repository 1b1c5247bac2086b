#include "base/log.h"

#include "gtest/gtest.h"

namespace ll {
namespace {

class LogTest : public testing::Test {
 protected:
  LogTest() {
    SetLogSink([this](LogLevel, const char*, int, const std::string& text) { said_ += text; });
    SetLogLevel(LogLevel::kWarning);
  }
  ~LogTest() override {
    SetLogLevel(LogLevel::kInfo);
    SetLogSink([](LogLevel, const char*, int, const std::string&) {});
  }
  std::string said_;
};

TEST_F(LogTest, WhatIsBelowTheLevelIsNeitherSaidNorWorkedOut) {
  int worked_out = 0;
  LL_LOG(kInfo) << "a" << ++worked_out;
  EXPECT_EQ(said_, "");
  EXPECT_EQ(worked_out, 0);
  LL_LOG(kWarning) << "b" << ++worked_out;
  EXPECT_EQ(said_, "b1");
}

TEST_F(LogTest, AnElseBelongsToTheIfAroundIt) {
  for (const bool bad : {true, false}) {
    if (bad)
      LL_LOG(kInfo) << "below the level";
    else
      said_ += "good";
  }
  EXPECT_EQ(said_, "good");
}

}  // namespace
}  // namespace ll
