// The interpreter's expressions.
#include <algorithm>
#include <cmath>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat/jinja/interpreter.h"
#include "model/chat/jinja/parser.h"
#include "model/chat/jinja/text.h"

namespace ll::jinja {
namespace {

// Chains and nesting together; a frame takes well under 4 kB.
constexpr int kMaxEvaluationDepth = 600;

absl::Status Error(int line, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", message));
}

// Bytes, roughly, of what a value holds itself.
int64_t SizeOf(const Value& value) {
  if (value.is_string()) return static_cast<int64_t>(value.as_string().size());
  if (value.is_list()) return static_cast<int64_t>(value.as_list().size()) * 64;
  if (value.is_dict()) return static_cast<int64_t>(value.as_dict().entries.size()) * 64;
  return 0;
}

absl::Status UndefinedError(int line, const Value& value) {
  return Error(line, absl::StrCat("\"", value.undefined_name(), "\" is undefined"));
}

absl::StatusOr<Value> Arithmetic(const std::string& op, const Value& a, const Value& b, int line) {
  if (op == "/" || a.is_float() || b.is_float()) {
    const double x = a.as_double(), y = b.as_double();
    if ((op == "/" || op == "//" || op == "%") && y == 0) return Error(line, "division by zero");
    if (op == "/") return Value::Float(x / y);
    if (op == "//") return Value::Float(std::floor(x / y));
    if (op == "%") return Value::Float(x - y * std::floor(x / y));
    return Value::Float(op == "+" ? x + y : op == "-" ? x - y : x * y);
  }
  const int64_t x = a.as_int(), y = b.as_int();
  int64_t result = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(x, y, &result);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(x, y, &result);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(x, y, &result);
  } else {  // Python rounds down, and the rest has the divisor's sign
    if (y == 0) return Error(line, "division by zero");
    if (y == -1) {  // x / -1 may not fit
      overflow = op == "//" && __builtin_sub_overflow(int64_t{0}, x, &result);
    } else {
      const bool down = x % y != 0 && (x < 0) != (y < 0);
      result = op == "//" ? x / y - (down ? 1 : 0) : x % y + (down ? y : 0);
    }
  }
  return overflow ? absl::StatusOr<Value>(Error(line, "the integer is too large"))
                  : Value::Int(result);
}

}  // namespace

absl::StatusOr<Value> Interpreter::Made(absl::StatusOr<Value> value, int line) {
  if (!value.ok()) {
    const absl::string_view message = value.status().message();
    return message.substr(0, 5) == "line " ? value.status() : Error(line, message);
  }
  const int64_t bytes = SizeOf(*value);
  if (bytes > limits_.output_bytes)
    return Error(line, absl::StrCat("a value is longer than ", limits_.output_bytes, " bytes"));
  // Destroying, printing and comparing a value go as deep as it nests.
  if (value->depth() > kMaxDepth) return Error(line, "lists and dicts nest too deep");
  LL_RETURN_IF_ERROR(Charge(bytes / 64, line));
  return value;
}

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr) {
  LL_RETURN_IF_ERROR(Charge(1, expr.line));
  if (depth_ >= kMaxEvaluationDepth) return Error(expr.line, "the expression is nested too deep");
  ++depth_;
  const absl::Cleanup up = [this] { --depth_; };
  return Compute(expr);
}

absl::StatusOr<Value> Interpreter::Compute(const Expr& expr) {
  switch (expr.kind) {
    case Expr::Kind::kLiteral:
      return expr.literal;
    case Expr::Kind::kName:
      return Lookup(expr.text);
    case Expr::Kind::kList:
    case Expr::Kind::kDict:
      return ListOrDict(expr);
    case Expr::Kind::kAttribute:
      return Attribute(expr);
    case Expr::Kind::kItem:
      return Item(expr);
    case Expr::Kind::kSlice:
      return Slice(expr);
    case Expr::Kind::kCall:
      return Call(expr);
    case Expr::Kind::kFilter:
    case Expr::Kind::kTest:
      return FilterOrTest(expr);
    case Expr::Kind::kUnary:
      return Unary(expr);
    case Expr::Kind::kBinary:
      return Binary(expr);
    case Expr::Kind::kCompare:
      return Compare(expr);
    case Expr::Kind::kNot:
    case Expr::Kind::kAnd:
    case Expr::Kind::kOr:
    case Expr::Kind::kConditional:
      return Logic(expr);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::ListOrDict(const Expr& expr) {
  List values;
  for (const ExprPtr& arg : expr.args) {
    LL_ASSIGN_OR_RETURN(Value value, Evaluate(*arg));
    if (value.is_namespace()) return Error(expr.line, "cannot keep a namespace in a list or dict");
    values.push_back(std::move(value));
  }
  if (expr.kind == Expr::Kind::kList) return Made(Value::Of(std::move(values)), expr.line);
  Dict dict;
  for (size_t i = 0; i < values.size(); i += 2) {
    if (!values[i].is_string())
      return Error(expr.line, absl::StrCat("expected a string as key of a dict, found ",
                                           values[i].TypeName()));
    dict.Set(values[i].as_string(), values[i + 1]);
  }
  return Made(Value::Of(std::move(dict)), expr.line);
}

// Jinja's `.`: a method before a member of that name.
absl::StatusOr<Value> Interpreter::Attribute(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value self, Evaluate(*expr.args[0]));
  if (self.is_undefined()) return UndefinedError(expr.line, self);
  if (IsMethod(self, expr.text))
    return Value::Of(Callable{expr.text, std::make_shared<const Value>(self)});
  const Value* found = self.is_dict()        ? self.as_dict().Find(expr.text)
                       : self.is_namespace() ? self.as_namespace().Find(expr.text)
                                             : nullptr;
  if (found != nullptr) return *found;
  return Value::MakeUndefined(expr.text);
}

absl::StatusOr<Value> Interpreter::Item(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value self, Evaluate(*expr.args[0]));
  LL_ASSIGN_OR_RETURN(const Value key, Evaluate(*expr.args[1]));
  if (self.is_undefined()) return UndefinedError(expr.line, self);
  if (self.is_dict() && key.is_string()) {
    const Value* found = self.as_dict().Find(key.as_string());
    if (found != nullptr) return *found;
  }
  if ((self.is_list() || self.is_string()) && key.is_int()) {
    LL_ASSIGN_OR_RETURN(
        const Value items,
        Made(Iterate(self).ok() ? Value::Of(*Iterate(self)) : Value::Of(List{}), expr.line));
    const int64_t n = static_cast<int64_t>(items.as_list().size());
    const int64_t index = key.as_int() < 0 ? key.as_int() + n : key.as_int();
    if (index >= 0 && index < n) return items.as_list()[static_cast<size_t>(index)];
  }
  return Value::MakeUndefined(key.is_string() ? key.as_string() : ToText(key));
}

// Python's slice of a list or a string.
absl::StatusOr<Value> Interpreter::Slice(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value self, Evaluate(*expr.args[0]));
  if (self.is_undefined()) return UndefinedError(expr.line, self);
  if (!self.is_list() && !self.is_string())
    return Error(expr.line, absl::StrCat("cannot slice ", self.TypeName()));
  int64_t bounds[3];
  bool given[3] = {};
  for (int i = 0; i < 3; ++i) {
    if (expr.args[i + 1] == nullptr) continue;
    LL_ASSIGN_OR_RETURN(const Value bound, Evaluate(*expr.args[i + 1]));
    if (bound.is_none()) continue;
    if (!bound.is_int()) return Error(expr.line, "the bounds of a slice are integers");
    bounds[i] = bound.as_int();
    given[i] = true;
  }
  const int64_t step = given[2] ? bounds[2] : 1;
  if (step == 0) return Error(expr.line, "the step of a slice is zero");
  auto items = Iterate(self);
  const int64_t n = static_cast<int64_t>(items->size());
  const int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
  const auto bound = [&](int i, int64_t fallback) {
    if (!given[i]) return fallback;
    const int64_t b = bounds[i] < 0 ? bounds[i] + n : bounds[i];
    return std::clamp(b, low, high);
  };
  const int64_t start = bound(0, step < 0 ? n - 1 : 0), stop = bound(1, step < 0 ? -1 : n);
  List out;
  for (int64_t i = start; step < 0 ? i > stop : i < stop;) {
    out.push_back((*items)[static_cast<size_t>(i)]);
    if (step > n || step < -n) break;  // and never an overflow
    i += step;
  }
  LL_RETURN_IF_ERROR(Charge(n, expr.line));
  if (self.is_list()) return Made(Value::Of(std::move(out)), expr.line);
  std::string text;
  for (const Value& c : out) text += c.as_string();
  return Made(Value::String(std::move(text)), expr.line);
}

absl::StatusOr<Arguments> Interpreter::ArgumentsOf(const Expr& expr) {
  Arguments out;
  for (size_t i = 1; i < expr.args.size(); ++i) {
    LL_ASSIGN_OR_RETURN(Value value, Evaluate(*expr.args[i]));
    out.positional.push_back(std::move(value));
  }
  for (const auto& [name, arg] : expr.named) {
    LL_ASSIGN_OR_RETURN(Value value, Evaluate(*arg));
    out.named.emplace_back(name, std::move(value));
  }
  return out;
}

absl::StatusOr<Value> Interpreter::Call(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expr.args[0]));
  if (!callee.is_callable()) {
    const std::string& name = expr.args[0]->text;
    return Error(expr.line, absl::StrCat("unknown function \"", name, "\""));
  }
  LL_ASSIGN_OR_RETURN(const Arguments arguments, ArgumentsOf(expr));
  const Callable& callable = callee.as_callable();
  if (callable.self == nullptr) return CallGlobal(callable.name, arguments, expr.line);
  LL_RETURN_IF_ERROR(Charge(SizeOf(*callable.self) / 64, expr.line));
  return Made(CallMethod(*callable.self, callable.name, arguments), expr.line);
}

absl::StatusOr<Value> Interpreter::CallGlobal(const std::string& name, const Arguments& arguments,
                                              int line) {
  if (name == "raise_exception") {
    const std::string why =
        arguments.positional.empty() ? "no reason given" : ToText(arguments.positional[0]);
    return Error(line, absl::StrCat("the template refuses: ", why));
  }
  if (name == "range") return Range(arguments, line);
  Dict members;
  if (!arguments.positional.empty() && arguments.positional[0].is_dict())
    members = arguments.positional[0].as_dict();
  for (const auto& [key, value] : arguments.named) {
    if (value.is_namespace()) return Error(line, "cannot keep a namespace in a namespace");
    members.Set(key, value);
  }
  if (name == "namespace") return Value::MakeNamespace(std::move(members));
  return Made(Value::Of(std::move(members)), line);
}

absl::StatusOr<Value> Interpreter::Range(const Arguments& arguments, int line) {
  int64_t bounds[3] = {0, 0, 1};
  const size_t n = arguments.positional.size();
  if (n < 1 || n > 3) return Error(line, "range takes one to three integers");
  for (size_t i = 0; i < n; ++i) {
    const Value& value = arguments.positional[i];
    if (!value.is_int() || std::llabs(value.as_int()) > limits_.steps)
      return Error(line, "range takes one to three integers, not too large");
    bounds[n == 1 ? 1 : i] = value.as_int();
  }
  if (bounds[2] == 0) return Error(line, "the step of range is zero");
  List out;
  for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2]) {
    LL_RETURN_IF_ERROR(Charge(1, line));
    out.push_back(Value::Int(i));
  }
  return Value::Of(std::move(out));
}

absl::StatusOr<Value> Interpreter::FilterOrTest(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value input, Evaluate(*expr.args[0]));
  LL_ASSIGN_OR_RETURN(const Arguments arguments, ArgumentsOf(expr));
  LL_RETURN_IF_ERROR(Charge(SizeOf(input) / 64, expr.line));
  if (expr.kind == Expr::Kind::kFilter)
    return Made(ApplyFilter(expr.text, input, arguments), expr.line);
  const auto passes = ApplyTest(expr.text, input, arguments.positional);
  if (!passes.ok()) return Error(expr.line, passes.status().message());
  return Value::Bool(*passes);
}

absl::StatusOr<Value> Interpreter::Unary(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value value, Evaluate(*expr.args[0]));
  if (!value.is_number())
    return Error(expr.line,
                 absl::StrCat("\"", expr.text, "\" expects a number, found ", value.TypeName()));
  return Arithmetic(expr.text, Value::Int(0), value, expr.line);
}

absl::StatusOr<Value> Interpreter::Add(const Value& a, const Value& b, int line) {
  if (a.is_string() && b.is_string())
    return Made(Value::String(absl::StrCat(a.as_string(), b.as_string())), line);
  List both = a.as_list();
  both.insert(both.end(), b.as_list().begin(), b.as_list().end());
  return Made(Value::Of(std::move(both)), line);
}

absl::StatusOr<Value> Interpreter::Binary(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(const Value a, Evaluate(*expr.args[0]));
  LL_ASSIGN_OR_RETURN(const Value b, Evaluate(*expr.args[1]));
  const std::string& op = expr.text;
  if (op == "~") return Made(Value::String(absl::StrCat(ToText(a), ToText(b))), expr.line);
  if (a.is_undefined()) return UndefinedError(expr.line, a);
  if (b.is_undefined()) return UndefinedError(expr.line, b);
  if (a.is_number() && b.is_number()) return Arithmetic(op, a, b, expr.line);
  if (op == "+" && ((a.is_string() && b.is_string()) || (a.is_list() && b.is_list())))
    return Add(a, b, expr.line);
  const Value &text = a.is_string() ? a : b, &count = a.is_string() ? b : a;
  if (op == "*" && text.is_string() && count.is_int()) {
    const int64_t times = std::max<int64_t>(0, count.as_int());
    const int64_t length = static_cast<int64_t>(text.as_string().size());
    if (length > 0 && times > limits_.output_bytes / length)
      return Error(expr.line, "the repeated text is too long");
    std::string out;
    for (int64_t i = 0; length > 0 && i < times; ++i) out += text.as_string();
    return Made(Value::String(std::move(out)), expr.line);
  }
  return Error(expr.line,
               absl::StrCat("\"", op, "\" does not work on ", a.TypeName(), " and ", b.TypeName()));
}

absl::StatusOr<Value> Interpreter::Compare(const Expr& expr) {
  LL_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.args[0]));
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    LL_ASSIGN_OR_RETURN(Value right, Evaluate(*expr.args[i + 1]));
    LL_RETURN_IF_ERROR(Charge((SizeOf(left) + SizeOf(right)) / 64, expr.line));
    const std::string& op = expr.operators[i];
    absl::StatusOr<bool> holds = false;
    if (op == "==" || op == "!=") {
      holds = Equals(left, right) == (op == "==");
    } else if (op == "in" || op == "not in") {
      holds = Contains(right, left);
      if (holds.ok() && op == "not in") holds = !*holds;
    } else {
      const bool swapped = op == ">" || op == "<=";
      holds = swapped ? Less(right, left) : Less(left, right);
      if (holds.ok() && op.size() == 2) holds = !*holds;
    }
    if (!holds.ok()) return Error(expr.line, holds.status().message());
    if (!*holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::Logic(const Expr& expr) {
  if (expr.kind == Expr::Kind::kConditional) {
    LL_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expr.args[1]));
    if (condition.Truthy()) return Evaluate(*expr.args[0]);
    if (expr.args[2] == nullptr) return Value();
    return Evaluate(*expr.args[2]);
  }
  LL_ASSIGN_OR_RETURN(Value left, Evaluate(*expr.args[0]));
  if (expr.kind == Expr::Kind::kNot) return Value::Bool(!left.Truthy());
  // Python's: the value that decides, not its truth.
  if (left.Truthy() == (expr.kind == Expr::Kind::kOr)) return left;
  return Evaluate(*expr.args[1]);
}

}  // namespace ll::jinja
