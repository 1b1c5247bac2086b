// GoogleTest matchers for absl::Status and absl::StatusOr. Tests only.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
inline const absl::Status& StatusOf(const absl::Status& s) { return s; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& s) {
  return s.status();
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

// The status has `code` and a message that contains `text`.
MATCHER_P2(StatusIs, code, text, "") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).code() == code &&
         std::string(StatusOf(arg).message()).find(text) != std::string::npos;
}
}  // namespace ll

#define LL_ASSERT_OK(expr) ASSERT_THAT((expr), ::ll::IsOk())
#define LL_EXPECT_OK(expr) EXPECT_THAT((expr), ::ll::IsOk())
// LL_ASSERT_OK_AND_ASSIGN(auto x, F()) fails the test when F() is an error.
#define LL_ASSERT_OK_AND_ASSIGN(lhs, expr) \
  LL_ASSERT_OK_AND_ASSIGN_IMPL(LL_TEST_CONCAT(ll_value_, __LINE__), lhs, expr)
#define LL_TEST_CONCAT_INNER(a, b) a##b
#define LL_TEST_CONCAT(a, b) LL_TEST_CONCAT_INNER(a, b)
#define LL_ASSERT_OK_AND_ASSIGN_IMPL(var, lhs, expr) \
  auto var = (expr);                                 \
  ASSERT_TRUE(var.ok()) << var.status();             \
  lhs = std::move(var).value()
