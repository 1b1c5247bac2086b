// Tokens to the tree. The subset: for (with else and a filter), if/elif/else, set (also as a block
// and on namespaces), generation, break, continue; expressions with filters, tests, calls, slices.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/jinja/ast.h"
#include "model/chat/jinja/lexer.h"

namespace ll::jinja {

// Nesting of blocks and of expressions that is parsed; the rest of the stack is safe with it.
inline constexpr int kMaxDepth = 64;
// Operators of one kind in a row.
inline constexpr int kMaxChain = 200;

// Errors begin with "line N: " and name what was found: an unknown tag, a missing end, nesting
// deeper than kMaxDepth.
absl::StatusOr<std::vector<Stmt>> Parse(const std::vector<Token>& tokens);

}  // namespace ll::jinja
