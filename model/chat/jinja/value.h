// The values of a template: what JSON can say, plus undefined names, namespaces and functions.
//
// A Value is cheap to copy: strings, lists and dicts are shared and, but for namespaces, never
// changed after they are made.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"

namespace ll::jinja {

class Value;
using List = std::vector<Value>;

// Insertion-ordered, as Python's.
struct Dict {
  std::vector<std::pair<std::string, Value>> entries;
  const Value* Find(absl::string_view key) const;
  void Set(const std::string& key, Value value);
};

// A name the template may call: a global function, or a method of `self`.
struct Callable {
  std::string name;
  std::shared_ptr<const Value> self;  // null for a global
};

struct Undefined {
  std::string name;  // for messages
};
struct None {};
struct Namespace {
  std::shared_ptr<Dict> members;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  static Value MakeUndefined(std::string name) { return Value(Undefined{std::move(name)}); }
  static Value MakeNone() { return Value(None{}); }
  static Value Bool(bool b) { return Value(b); }
  static Value Int(int64_t i) { return Value(i); }
  static Value Float(double d) { return Value(d); }
  static Value String(std::string s) {
    return Value(std::make_shared<const std::string>(std::move(s)));
  }
  static Value Of(List list);
  static Value Of(Dict dict);
  static Value Of(Callable callable) { return Value(std::move(callable)); }
  static Value MakeNamespace(Dict members) {
    return Value(Namespace{std::make_shared<Dict>(std::move(members))});
  }

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_string() const {
    return std::holds_alternative<std::shared_ptr<const std::string>>(data_);
  }
  bool is_list() const { return std::holds_alternative<std::shared_ptr<const List>>(data_); }
  bool is_dict() const { return std::holds_alternative<std::shared_ptr<const Dict>>(data_); }
  bool is_namespace() const { return std::holds_alternative<Namespace>(data_); }
  bool is_callable() const { return std::holds_alternative<Callable>(data_); }
  // bool, int or float: what arithmetic takes, as in Python.
  bool is_number() const { return is_bool() || is_int() || is_float(); }

  // Each only where the test above holds.
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  bool as_bool() const { return std::get<bool>(data_); }
  const std::string& as_string() const {
    return *std::get<std::shared_ptr<const std::string>>(data_);
  }
  const List& as_list() const { return *std::get<std::shared_ptr<const List>>(data_); }
  const Dict& as_dict() const { return *std::get<std::shared_ptr<const Dict>>(data_); }
  Dict& as_namespace() const { return *std::get<Namespace>(data_).members; }
  const Callable& as_callable() const { return std::get<Callable>(data_); }
  // Of a bool or an int; of any number.
  int64_t as_int() const { return is_bool() ? (as_bool() ? 1 : 0) : std::get<int64_t>(data_); }
  double as_double() const {
    return is_float() ? std::get<double>(data_) : static_cast<double>(as_int());
  }

  // How deep lists and dicts nest in it: 0 for a scalar.
  int depth() const { return depth_; }
  // Python's truth: empty and zero are false.
  bool Truthy() const;
  // "string", "list", …, for messages.
  const char* TypeName() const;

 private:
  using Data =
      std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const std::string>,
                   std::shared_ptr<const List>, std::shared_ptr<const Dict>, Namespace, Callable>;
  explicit Value(Data data) : data_(std::move(data)) {}
  Data data_;
  int depth_ = 0;
};

// Python's ==. Values nest at most as deep as the interpreter let them grow.
bool Equals(const Value& a, const Value& b);

// What `{{ value }}` prints: Python's str(), and nothing for an undefined value.
std::string ToText(const Value& value);
// Python's json.dumps(ensure_ascii=False); indent < 0: on one line.
std::string ToJsonText(const Value& value, int indent = -1);

}  // namespace ll::jinja
