// Runs the tree of one template once. Internal to this folder.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/chat/jinja/ast.h"
#include "model/chat/jinja/builtins.h"
#include "model/chat/jinja/template.h"

namespace ll::jinja {

// Not thread-safe.
class Interpreter {
 public:
  Interpreter(const Dict& globals, const Limits& limits);
  absl::StatusOr<Rendered> Run(const std::vector<Stmt>& body);

 private:
  enum class Flow { kOn, kBreak, kContinue };
  using Scope = std::map<std::string, Value>;

  // ---- statements
  absl::StatusOr<Flow> Body(const std::vector<Stmt>& body);
  absl::StatusOr<Flow> Statement(const Stmt& stmt);
  absl::StatusOr<Flow> For(const Stmt& stmt);
  absl::StatusOr<List> LoopItems(const Stmt& stmt);
  absl::StatusOr<Flow> Generation(const Stmt& stmt);
  absl::Status Output(const Stmt& stmt);
  absl::Status Set(const Stmt& stmt);
  absl::Status SetBlock(const Stmt& stmt);
  absl::Status Bind(const std::vector<std::string>& targets, const Value& value, int line);
  absl::Status Print(absl::string_view text, int line);

  // ---- expressions
  absl::StatusOr<Value> Evaluate(const Expr& expr);
  absl::StatusOr<Value> Compute(const Expr& expr);
  absl::StatusOr<Value> ListOrDict(const Expr& expr);
  absl::StatusOr<Value> Attribute(const Expr& expr);
  absl::StatusOr<Value> Item(const Expr& expr);
  absl::StatusOr<Value> Slice(const Expr& expr);
  absl::StatusOr<Value> Call(const Expr& expr);
  absl::StatusOr<Value> CallGlobal(const std::string& name, const Arguments& arguments, int line);
  absl::StatusOr<Value> Range(const Arguments& arguments, int line);
  absl::StatusOr<Value> FilterOrTest(const Expr& expr);
  absl::StatusOr<Value> Unary(const Expr& expr);
  absl::StatusOr<Value> Binary(const Expr& expr);
  absl::StatusOr<Value> Add(const Value& a, const Value& b, int line);
  absl::StatusOr<Value> Compare(const Expr& expr);
  absl::StatusOr<Value> Logic(const Expr& expr);
  absl::StatusOr<Arguments> ArgumentsOf(const Expr& expr);
  Value Lookup(const std::string& name) const;

  absl::Status Charge(int64_t steps, int line);
  // Charges for a value that was just made, and bounds it.
  absl::StatusOr<Value> Made(absl::StatusOr<Value> value, int line);

  const Limits limits_;
  int64_t steps_ = 0;
  int depth_ = 0;
  std::vector<Scope> scopes_;
  std::string* out_;  // where text goes: rendered_.text, or the text of a set block
  bool in_generation_ = false;
  Rendered rendered_;
};

}  // namespace ll::jinja
