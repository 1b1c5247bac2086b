// The expressions of a template, by precedence, and the tokens they are read from.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat/jinja/ast.h"
#include "model/chat/jinja/lexer.h"

namespace ll::jinja {

// Where a parser stands. `tokens` outlives it and ends with kEnd.
class TokenStream {
 public:
  explicit TokenStream(const std::vector<Token>& tokens) : tokens_(tokens) {}

  const Token& Peek() const { return tokens_[at_]; }
  // Takes a token; at the end it gives kEnd again and again.
  const Token& Next();
  int line() const { return Peek().line; }
  bool IsOperator(absl::string_view op) const;
  bool IsName(absl::string_view name) const;
  // Take the token if it is the one that is wanted.
  bool TakeOperator(absl::string_view op);
  bool TakeName(absl::string_view name);

  absl::Status Expect(Token::Kind kind, absl::string_view spelling);
  absl::Status ExpectOperator(absl::string_view op);
  absl::StatusOr<std::string> ExpectName();
  // "line N: MESSAGE"; "line N: expected EXPECTED, found the token here".
  absl::Status Error(absl::string_view message) const;
  absl::Status Unexpected(absl::string_view expected) const;

 private:
  friend class DepthGuard;
  const std::vector<Token>& tokens_;
  size_t at_ = 0;
  int depth_ = 0;
};

// Counts one level of nesting for its life.
class DepthGuard {
 public:
  explicit DepthGuard(TokenStream& stream) : stream_(stream) { ++stream_.depth_; }
  ~DepthGuard() { --stream_.depth_; }
  // An error where the nesting is too deep.
  absl::Status status() const;

 private:
  TokenStream& stream_;
};

class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& in) : in_(in) {}

  absl::StatusOr<ExprPtr> Expression();         // with `a if b else c`
  absl::StatusOr<ExprPtr> ExpressionOrTuple();  // also `a, b`
  absl::StatusOr<ExprPtr> Or();                 // without the conditional

 private:
  absl::StatusOr<ExprPtr> And();
  absl::StatusOr<ExprPtr> Not();
  absl::StatusOr<ExprPtr> Compare();
  // Left-associative operators: level 0 is + and -, 1 is ~, 2 is * / // %.
  absl::StatusOr<ExprPtr> Binary(int level);
  absl::StatusOr<ExprPtr> Unary(bool with_filters);
  absl::StatusOr<ExprPtr> Primary();
  absl::StatusOr<ExprPtr> Bracketed();
  absl::StatusOr<ExprPtr> DictLiteral();
  absl::StatusOr<ExprPtr> Postfix(ExprPtr value);
  absl::StatusOr<ExprPtr> Subscript(ExprPtr value);
  absl::StatusOr<ExprPtr> FiltersAndTests(ExprPtr value);
  absl::StatusOr<ExprPtr> Test(ExprPtr value);
  // Behind "(", up to and with ")".
  absl::Status Arguments(Expr& call);

  absl::Status Link(int& links) const;
  ExprPtr Make(Expr::Kind kind) const;
  ExprPtr Make(Expr::Kind kind, std::string text, ExprPtr first, ExprPtr second = nullptr) const;

  TokenStream& in_;
};

}  // namespace ll::jinja
