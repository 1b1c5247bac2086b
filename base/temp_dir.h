// A folder for one test.
#pragma once

#include <stdlib.h>

#include <string>

#include "base/check.h"
#include "base/file.h"
#include "gtest/gtest.h"

namespace ll {

// Made when constructed, removed with all that is in it at the end.
class TempDir {
 public:
  TempDir() : path_(testing::TempDir() + "/ll-test-XXXXXX") {
    LL_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TempDir() { EXPECT_TRUE(RemoveTree(path_).ok()) << path_; }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace ll
