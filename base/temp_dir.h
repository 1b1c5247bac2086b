// A folder for one test.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <iostream>
#include <string>

#include "base/check.h"
#include "base/file.h"
#include "gtest/gtest.h"

namespace ll {

// Made when constructed, removed with all that is in it at the end. Its path has no link in it.
class TempDir {
 public:
  TempDir() : path_(std::filesystem::canonical(testing::TempDir()).string() + "/ll-test-XXXXXX") {
    LL_CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~TempDir() {
    if (kept_) {
      std::cout << "kept for a look: " << path_ << std::endl;
    } else {
      EXPECT_TRUE(RemoveTree(path_).ok()) << path_;
    }
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // For a test that failed: the folder stays, and its name is told.
  void Keep() { kept_ = true; }

 private:
  std::string path_;
  bool kept_ = false;
};

}  // namespace ll
