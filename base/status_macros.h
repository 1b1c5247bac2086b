// Early return on error. Two macros are enough; Debian's absl has none.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define LL_STATUS_CONCAT_INNER(a, b) a##b
#define LL_STATUS_CONCAT(a, b) LL_STATUS_CONCAT_INNER(a, b)

// Returns from the enclosing function when `expr`, an absl::Status, is an error.
#define LL_RETURN_IF_ERROR(expr)             \
  do {                                       \
    absl::Status ll_status_ = (expr);        \
    if (!ll_status_.ok()) return ll_status_; \
  } while (false)

// LL_ASSIGN_OR_RETURN(auto x, F()) assigns the value of an absl::StatusOr or returns its error.
#define LL_ASSIGN_OR_RETURN(lhs, expr) \
  LL_ASSIGN_OR_RETURN_IMPL(LL_STATUS_CONCAT(ll_status_or_, __LINE__), lhs, expr)
#define LL_ASSIGN_OR_RETURN_IMPL(var, lhs, expr) \
  auto var = (expr);                             \
  if (!var.ok()) return std::move(var).status(); \
  lhs = std::move(var).value()
