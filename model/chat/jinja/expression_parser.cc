#include "model/chat/jinja/expression_parser.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat/jinja/parser.h"
#include "model/chat/jinja/text.h"

namespace ll::jinja {

using Kind = Token::Kind;

// ---- tokens

const Token& TokenStream::Next() {
  const Token& token = tokens_[at_];
  if (token.kind != Kind::kEnd) ++at_;
  return token;
}

bool TokenStream::IsOperator(absl::string_view op) const {
  return Peek().kind == Kind::kOperator && Peek().text == op;
}
bool TokenStream::IsName(absl::string_view name) const {
  return Peek().kind == Kind::kName && Peek().text == name;
}

bool TokenStream::TakeOperator(absl::string_view op) {
  if (!IsOperator(op)) return false;
  ++at_;
  return true;
}
bool TokenStream::TakeName(absl::string_view name) {
  if (!IsName(name)) return false;
  ++at_;
  return true;
}

absl::Status TokenStream::Error(absl::string_view message) const {
  return absl::InvalidArgumentError(absl::StrCat("line ", line(), ": ", message));
}

absl::Status TokenStream::Unexpected(absl::string_view expected) const {
  static const char* const kSpelling[] = {"text", "{%", "%}", "{{", "}}"};
  const Token& token = Peek();
  const std::string found =
      token.kind == Kind::kEnd         ? std::string("the end of the template")
      : token.kind <= Kind::kOutputEnd ? kSpelling[static_cast<int>(token.kind)]
      : token.kind == Kind::kString    ? absl::StrCat("'", PrintableStart(token.text), "'")
                                       : absl::StrCat("\"", PrintableStart(token.text), "\"");
  return Error(absl::StrCat("expected ", expected, ", found ", found));
}

absl::Status TokenStream::Expect(Token::Kind kind, absl::string_view spelling) {
  if (Peek().kind != kind) return Unexpected(spelling);
  Next();
  return absl::OkStatus();
}

absl::Status TokenStream::ExpectOperator(absl::string_view op) {
  return TakeOperator(op) ? absl::OkStatus() : Unexpected(op);
}

absl::StatusOr<std::string> TokenStream::ExpectName() {
  if (Peek().kind != Kind::kName) return Unexpected("a name");
  return Next().text;
}

absl::Status DepthGuard::status() const {
  if (stream_.depth_ <= kMaxDepth) return absl::OkStatus();
  return stream_.Error(absl::StrCat("nested deeper than ", kMaxDepth));
}

// ---- expressions, loosest binding first

ExprPtr ExpressionParser::Make(Expr::Kind kind) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = in_.line();
  return expr;
}

ExprPtr ExpressionParser::Make(Expr::Kind kind, std::string text, ExprPtr first,
                               ExprPtr second) const {
  ExprPtr expr = Make(kind);
  expr->text = std::move(text);
  expr->args.push_back(std::move(first));
  if (second != nullptr) expr->args.push_back(std::move(second));
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::Expression() {
  DepthGuard guard(in_);
  LL_RETURN_IF_ERROR(guard.status());
  LL_ASSIGN_OR_RETURN(ExprPtr value, Or());
  if (!in_.TakeName("if")) return value;
  LL_ASSIGN_OR_RETURN(ExprPtr condition, Or());
  ExprPtr otherwise;
  if (in_.TakeName("else")) {
    LL_ASSIGN_OR_RETURN(otherwise, Expression());
  }
  ExprPtr expr = Make(Expr::Kind::kConditional, "", std::move(value), std::move(condition));
  expr->args.push_back(std::move(otherwise));
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ExpressionOrTuple() {
  LL_ASSIGN_OR_RETURN(ExprPtr first, Expression());
  if (!in_.IsOperator(",")) return first;
  ExprPtr list = Make(Expr::Kind::kList, "", std::move(first));
  while (in_.TakeOperator(",")) {
    LL_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    list->args.push_back(std::move(item));
  }
  return list;
}

// Chains such as a + b + c become trees that are deep to the left.
absl::Status ExpressionParser::Link(int& links) const {
  return ++links <= kMaxChain
             ? absl::OkStatus()
             : in_.Error(absl::StrCat("more than ", kMaxChain, " operators in a row"));
}

absl::StatusOr<ExprPtr> ExpressionParser::Or() {
  LL_ASSIGN_OR_RETURN(ExprPtr left, And());
  for (int links = 0; in_.TakeName("or");) {
    LL_RETURN_IF_ERROR(Link(links));
    LL_ASSIGN_OR_RETURN(ExprPtr right, And());
    left = Make(Expr::Kind::kOr, "or", std::move(left), std::move(right));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::And() {
  LL_ASSIGN_OR_RETURN(ExprPtr left, Not());
  for (int links = 0; in_.TakeName("and");) {
    LL_RETURN_IF_ERROR(Link(links));
    LL_ASSIGN_OR_RETURN(ExprPtr right, Not());
    left = Make(Expr::Kind::kAnd, "and", std::move(left), std::move(right));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Not() {
  if (!in_.TakeName("not")) return Compare();
  DepthGuard guard(in_);
  LL_RETURN_IF_ERROR(guard.status());
  LL_ASSIGN_OR_RETURN(ExprPtr value, Not());
  return Make(Expr::Kind::kNot, "not", std::move(value));
}

absl::StatusOr<ExprPtr> ExpressionParser::Compare() {
  LL_ASSIGN_OR_RETURN(ExprPtr first, Binary(0));
  ExprPtr compare;
  while (true) {
    std::string op;
    for (const char* known : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (op.empty() && in_.TakeOperator(known)) op = known;
    }
    if (op.empty() && in_.TakeName("in")) op = "in";
    if (op.empty() && in_.TakeName("not")) {  // `x not` goes on with `in` only
      if (!in_.TakeName("in")) return in_.Unexpected("in");
      op = "not in";
    }
    if (op.empty()) break;
    LL_ASSIGN_OR_RETURN(ExprPtr next, Binary(0));
    if (compare == nullptr) compare = Make(Expr::Kind::kCompare, "", std::move(first));
    compare->operators.push_back(op);
    compare->args.push_back(std::move(next));
  }
  return compare != nullptr ? std::move(compare) : std::move(first);
}

absl::StatusOr<ExprPtr> ExpressionParser::Binary(int level) {
  static const std::vector<const char*> kLevels[] = {{"+", "-"}, {"~"}, {"*", "//", "/", "%"}};
  if (level == 3) return Unary(/*with_filters=*/true);
  LL_ASSIGN_OR_RETURN(ExprPtr left, Binary(level + 1));
  for (int links = 0;;) {
    std::string op;
    for (const char* known : kLevels[level]) {
      if (op.empty() && in_.TakeOperator(known)) op = known;
    }
    if (op.empty()) break;
    LL_RETURN_IF_ERROR(Link(links));
    LL_ASSIGN_OR_RETURN(ExprPtr right, Binary(level + 1));
    left = Make(Expr::Kind::kBinary, op, std::move(left), std::move(right));
  }
  if (in_.IsOperator("**")) return in_.Error("unknown operator \"**\"");
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::Unary(bool with_filters) {
  ExprPtr value;
  if (in_.IsOperator("-") || in_.IsOperator("+")) {
    DepthGuard guard(in_);
    LL_RETURN_IF_ERROR(guard.status());
    std::string op = in_.Next().text;
    LL_ASSIGN_OR_RETURN(ExprPtr operand, Unary(/*with_filters=*/false));
    value = Make(Expr::Kind::kUnary, std::move(op), std::move(operand));
  } else {
    LL_ASSIGN_OR_RETURN(value, Primary());
  }
  LL_ASSIGN_OR_RETURN(value, Postfix(std::move(value)));
  return with_filters ? FiltersAndTests(std::move(value)) : std::move(value);
}

absl::StatusOr<ExprPtr> ExpressionParser::Primary() {
  ExprPtr literal = Make(Expr::Kind::kLiteral);
  const Token& token = in_.Peek();
  if (token.kind == Kind::kString) {
    std::string text = in_.Next().text;
    while (in_.Peek().kind == Kind::kString) text += in_.Next().text;
    literal->literal = Value::String(std::move(text));
    return literal;
  }
  if (token.kind == Kind::kInt) {
    int64_t number = 0;
    if (!absl::SimpleAtoi(token.text, &number)) return in_.Unexpected("a smaller integer");
    in_.Next();
    literal->literal = Value::Int(number);
    return literal;
  }
  if (token.kind == Kind::kFloat) {
    double number = 0;
    if (!absl::SimpleAtod(token.text, &number)) return in_.Unexpected("a number");
    in_.Next();
    literal->literal = Value::Float(number);
    return literal;
  }
  if (token.kind == Kind::kOperator) return Bracketed();
  if (token.kind != Kind::kName) return in_.Unexpected("an expression");
  const std::string name = in_.Next().text;
  if (name == "true" || name == "True") {
    literal->literal = Value::Bool(true);
  } else if (name == "false" || name == "False") {
    literal->literal = Value::Bool(false);
  } else if (name == "none" || name == "None") {
    literal->literal = Value::MakeNone();
  } else {
    literal->kind = Expr::Kind::kName;
    literal->text = name;
  }
  return literal;
}

// ( … ), [ … ] and { … }.
absl::StatusOr<ExprPtr> ExpressionParser::Bracketed() {
  if (in_.IsOperator("{")) return DictLiteral();
  const bool round = in_.TakeOperator("(");
  if (!round && !in_.TakeOperator("[")) return in_.Unexpected("an expression");
  const char* close = round ? ")" : "]";
  ExprPtr list = Make(Expr::Kind::kList);
  bool comma = false;
  while (!in_.TakeOperator(close)) {
    LL_ASSIGN_OR_RETURN(ExprPtr item, Expression());
    list->args.push_back(std::move(item));
    if (in_.TakeOperator(",")) {
      comma = true;
    } else if (!in_.IsOperator(close)) {
      return in_.Unexpected(close);
    }
  }
  if (round && !comma && list->args.size() == 1) return std::move(list->args[0]);
  return list;
}

absl::StatusOr<ExprPtr> ExpressionParser::DictLiteral() {
  ExprPtr dict = Make(Expr::Kind::kDict);
  in_.Next();
  while (!in_.TakeOperator("}")) {
    LL_ASSIGN_OR_RETURN(ExprPtr key, Expression());
    LL_RETURN_IF_ERROR(in_.ExpectOperator(":"));
    LL_ASSIGN_OR_RETURN(ExprPtr value, Expression());
    dict->args.push_back(std::move(key));
    dict->args.push_back(std::move(value));
    if (!in_.TakeOperator(",") && !in_.IsOperator("}")) return in_.Unexpected("}");
  }
  return dict;
}

// ---- what follows a value

absl::StatusOr<ExprPtr> ExpressionParser::Postfix(ExprPtr value) {
  for (int links = 0;;) {
    LL_RETURN_IF_ERROR(Link(links));
    if (in_.TakeOperator(".")) {
      if (in_.Peek().kind != Kind::kName) return in_.Unexpected("a name");
      value = Make(Expr::Kind::kAttribute, in_.Peek().text, std::move(value));
      in_.Next();
    } else if (in_.TakeOperator("[")) {
      LL_ASSIGN_OR_RETURN(value, Subscript(std::move(value)));
    } else if (in_.TakeOperator("(")) {
      value = Make(Expr::Kind::kCall, "", std::move(value));
      LL_RETURN_IF_ERROR(Arguments(*value));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Subscript(ExprPtr value) {
  ExprPtr expr = Make(Expr::Kind::kItem, "", std::move(value));
  for (int part = 0; part < 3; ++part) {
    ExprPtr bound;
    if (!in_.IsOperator(":") && !in_.IsOperator("]")) {
      LL_ASSIGN_OR_RETURN(bound, Expression());
    }
    expr->args.push_back(std::move(bound));
    if (part == 2 || !in_.TakeOperator(":")) break;
    expr->kind = Expr::Kind::kSlice;
  }
  if (expr->kind == Expr::Kind::kItem && expr->args[1] == nullptr)
    return in_.Unexpected("an index");
  if (expr->kind == Expr::Kind::kSlice) expr->args.resize(4);
  LL_RETURN_IF_ERROR(in_.ExpectOperator("]"));
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::FiltersAndTests(ExprPtr value) {
  for (int links = 0;;) {
    LL_RETURN_IF_ERROR(Link(links));
    if (in_.TakeOperator("|")) {
      LL_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
      value = Make(Expr::Kind::kFilter, std::move(name), std::move(value));
      if (in_.TakeOperator("(")) LL_RETURN_IF_ERROR(Arguments(*value));
    } else if (in_.TakeName("is")) {
      LL_ASSIGN_OR_RETURN(value, Test(std::move(value)));
    } else if (in_.TakeOperator("(")) {
      value = Make(Expr::Kind::kCall, "", std::move(value));
      LL_RETURN_IF_ERROR(Arguments(*value));
    } else {
      return value;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::Test(ExprPtr value) {
  const bool negated = in_.TakeName("not");
  LL_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
  ExprPtr test = Make(Expr::Kind::kTest, std::move(name), std::move(value));
  if (in_.TakeOperator("(")) {
    LL_RETURN_IF_ERROR(Arguments(*test));
  } else {
    // `x is divisibleby 3`: one argument may stand without brackets.
    const Token& token = in_.Peek();
    const bool literal = token.kind == Kind::kString || token.kind == Kind::kInt ||
                         token.kind == Kind::kFloat || in_.IsOperator("[");
    const bool name_argument = token.kind == Kind::kName && !in_.IsName("else") &&
                               !in_.IsName("or") && !in_.IsName("and") && !in_.IsName("if") &&
                               !in_.IsName("is") && !in_.IsName("in") && !in_.IsName("not");
    if (literal || name_argument) {
      LL_ASSIGN_OR_RETURN(ExprPtr argument, Primary());
      LL_ASSIGN_OR_RETURN(argument, Postfix(std::move(argument)));
      test->args.push_back(std::move(argument));
    }
  }
  return negated ? Make(Expr::Kind::kNot, "not", std::move(test)) : std::move(test);
}

absl::Status ExpressionParser::Arguments(Expr& call) {
  while (!in_.TakeOperator(")")) {
    LL_ASSIGN_OR_RETURN(ExprPtr value, Expression());
    if (value->kind == Expr::Kind::kName && in_.TakeOperator("=")) {
      LL_ASSIGN_OR_RETURN(ExprPtr named, Expression());
      call.named.emplace_back(value->text, std::move(named));
    } else {
      call.args.push_back(std::move(value));
    }
    if (!in_.TakeOperator(",") && !in_.IsOperator(")")) return in_.Unexpected(")");
  }
  return absl::OkStatus();
}

}  // namespace ll::jinja
