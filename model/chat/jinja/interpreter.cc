#include "model/chat/jinja/interpreter.h"

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace ll::jinja {
namespace {

absl::Status Error(int line, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", message));
}

// What `loop` is inside a `for`.
Value LoopValue(const List& items, size_t i) {
  const auto number = [](size_t n) { return Value::Int(static_cast<int64_t>(n)); };
  const size_t n = items.size();
  Dict loop;
  loop.entries = {
      {"index", number(i + 1)},
      {"index0", number(i)},
      {"revindex", number(n - i)},
      {"revindex0", number(n - i - 1)},
      {"first", Value::Bool(i == 0)},
      {"last", Value::Bool(i + 1 == n)},
      {"length", number(n)},
      {"previtem", i > 0 ? items[i - 1] : Value::MakeUndefined("loop.previtem")},
      {"nextitem", i + 1 < n ? items[i + 1] : Value::MakeUndefined("loop.nextitem")},
  };
  return Value::Of(std::move(loop));
}

}  // namespace

Interpreter::Interpreter(const Dict& globals, const Limits& limits) : limits_(limits) {
  scopes_.emplace_back();
  for (const char* name : {"raise_exception", "namespace", "range", "dict"})
    scopes_[0][name] = Value::Of(Callable{name, nullptr});
  for (const auto& [name, value] : globals.entries) scopes_[0][name] = value;
  scopes_.emplace_back();
}

absl::StatusOr<Rendered> Interpreter::Run(const std::vector<Stmt>& body) {
  out_ = &rendered_.text;
  LL_RETURN_IF_ERROR(Body(body).status());
  return std::move(rendered_);
}

absl::Status Interpreter::Charge(int64_t steps, int line) {
  steps_ += steps;
  if (steps_ <= limits_.steps) return absl::OkStatus();
  return Error(line, absl::StrCat("the template took more than ", limits_.steps, " steps"));
}

// ---- statements

absl::StatusOr<Interpreter::Flow> Interpreter::Body(const std::vector<Stmt>& body) {
  for (const Stmt& stmt : body) {
    LL_ASSIGN_OR_RETURN(const Flow flow, Statement(stmt));
    if (flow != Flow::kOn) return flow;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Statement(const Stmt& stmt) {
  LL_RETURN_IF_ERROR(Charge(1, stmt.line));
  absl::Status status;
  switch (stmt.kind) {
    case Stmt::Kind::kText:
      status = Print(stmt.text, stmt.line);
      break;
    case Stmt::Kind::kOutput:
      status = Output(stmt);
      break;
    case Stmt::Kind::kIf: {
      LL_ASSIGN_OR_RETURN(const Value condition, Evaluate(*stmt.value));
      return Body(condition.Truthy() ? stmt.body : stmt.orelse);
    }
    case Stmt::Kind::kFor:
      return For(stmt);
    case Stmt::Kind::kSet:
      status = Set(stmt);
      break;
    case Stmt::Kind::kSetBlock:
      status = SetBlock(stmt);
      break;
    case Stmt::Kind::kGeneration:
      return Generation(stmt);
    case Stmt::Kind::kBreak:
      return Flow::kBreak;
    case Stmt::Kind::kContinue:
      return Flow::kContinue;
  }
  LL_RETURN_IF_ERROR(status);
  return Flow::kOn;
}

// The items that pass the loop's `if`.
absl::StatusOr<List> Interpreter::LoopItems(const Stmt& stmt) {
  LL_ASSIGN_OR_RETURN(const Value range, Evaluate(*stmt.value));
  auto iterated = Iterate(range);
  if (!iterated.ok()) return Error(stmt.line, iterated.status().message());
  LL_RETURN_IF_ERROR(Charge(static_cast<int64_t>(iterated->size()), stmt.line));
  if (stmt.condition == nullptr) return iterated;
  List items;
  scopes_.emplace_back();
  const absl::Cleanup leave = [this] { scopes_.pop_back(); };
  for (const Value& item : *iterated) {
    LL_RETURN_IF_ERROR(Bind(stmt.targets, item, stmt.line));
    LL_ASSIGN_OR_RETURN(const Value passes, Evaluate(*stmt.condition));
    if (passes.Truthy()) items.push_back(item);
  }
  return items;
}

absl::StatusOr<Interpreter::Flow> Interpreter::For(const Stmt& stmt) {
  LL_ASSIGN_OR_RETURN(const List items, LoopItems(stmt));
  if (items.empty()) return Body(stmt.orelse);
  scopes_.emplace_back();
  const absl::Cleanup leave = [this] { scopes_.pop_back(); };
  for (size_t i = 0; i < items.size(); ++i) {
    scopes_.back().clear();  // what the body sets is gone in the next round
    scopes_.back()["loop"] = LoopValue(items, i);
    LL_RETURN_IF_ERROR(Bind(stmt.targets, items[i], stmt.line));
    LL_ASSIGN_OR_RETURN(const Flow flow, Body(stmt.body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kOn;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Generation(const Stmt& stmt) {
  // A block inside another one is part of that one's span.
  if (out_ != &rendered_.text || in_generation_) return Body(stmt.body);
  const size_t start = rendered_.text.size();
  in_generation_ = true;
  const absl::Cleanup leave = [this] { in_generation_ = false; };
  LL_ASSIGN_OR_RETURN(const Flow flow, Body(stmt.body));
  if (rendered_.text.size() > start) rendered_.generated.emplace_back(start, rendered_.text.size());
  return flow;
}

absl::Status Interpreter::Output(const Stmt& stmt) {
  LL_ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.value));
  if (value.is_callable() || value.is_namespace())
    return Error(stmt.line, absl::StrCat("cannot print ", value.TypeName()));
  return Print(ToText(value), stmt.line);
}

absl::Status Interpreter::Print(absl::string_view text, int line) {
  if (static_cast<int64_t>(out_->size() + text.size()) > limits_.output_bytes) {
    return Error(line, absl::StrCat("the text is longer than ", limits_.output_bytes, " bytes"));
  }
  out_->append(text.data(), text.size());
  return Charge(static_cast<int64_t>(text.size() / 64), line);
}

absl::Status Interpreter::Set(const Stmt& stmt) {
  LL_ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.value));
  if (stmt.text.empty()) return Bind(stmt.targets, value, stmt.line);
  const Value space = Lookup(stmt.targets[0]);
  if (!space.is_namespace()) {
    return Error(stmt.line, absl::StrCat("cannot set \"", stmt.text, "\" of ", stmt.targets[0],
                                         ", which is no namespace"));
  }
  // A namespace inside itself would never be freed and never end when printed.
  if (value.is_namespace()) return Error(stmt.line, "cannot keep a namespace in a namespace");
  space.as_namespace().Set(stmt.text, value);
  return absl::OkStatus();
}

absl::Status Interpreter::SetBlock(const Stmt& stmt) {
  std::string text;
  std::string* const outside = std::exchange(out_, &text);
  const auto flow = Body(stmt.body);
  out_ = outside;
  LL_RETURN_IF_ERROR(flow.status());
  return Bind(stmt.targets, Value::String(std::move(text)), stmt.line);
}

absl::Status Interpreter::Bind(const std::vector<std::string>& targets, const Value& value,
                               int line) {
  if (targets.size() == 1) {
    scopes_.back()[targets[0]] = value;
    return absl::OkStatus();
  }
  if (!value.is_list() || value.as_list().size() != targets.size()) {
    return Error(
        line, absl::StrCat("cannot unpack ", value.TypeName(), " into ", targets.size(), " names"));
  }
  for (size_t i = 0; i < targets.size(); ++i) scopes_.back()[targets[i]] = value.as_list()[i];
  return absl::OkStatus();
}

Value Interpreter::Lookup(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->find(name);
    if (found != scope->end()) return found->second;
  }
  return Value::MakeUndefined(name);
}

}  // namespace ll::jinja
