#include "model/chat/jinja/builtins.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "model/chat/jinja/text.h"

namespace ll::jinja {
namespace {

absl::Status Refuse(absl::string_view message) { return absl::InvalidArgumentError(message); }

absl::Status WrongType(absl::string_view who, absl::string_view expected, const Value& found) {
  return Refuse(absl::StrCat(who, " expects ", expected, ", found ", found.TypeName(),
                             found.is_undefined() && !found.undefined_name().empty()
                                 ? absl::StrCat(" (", found.undefined_name(), ")")
                                 : ""));
}

absl::StatusOr<std::string> TextArgument(const Arguments& arguments, size_t index,
                                         absl::string_view name, absl::string_view who) {
  const Value* value = arguments.Get(index, name);
  if (value == nullptr) return Refuse(absl::StrCat(who, " lacks its argument ", name));
  if (!value->is_string()) return WrongType(who, "a string", *value);
  return value->as_string();
}

int64_t IntArgument(const Arguments& arguments, size_t index, absl::string_view name,
                    int64_t fallback) {
  const Value* value = arguments.Get(index, name);
  return value != nullptr && value->is_number() && !value->is_float() ? value->as_int() : fallback;
}

Value Strings(const std::vector<std::string>& texts) {
  List list;
  for (const std::string& text : texts) list.push_back(Value::String(text));
  return Value::Of(std::move(list));
}

Value Items(const Dict& dict) {
  List list;
  for (const auto& [key, value] : dict.entries)
    list.push_back(Value::Of(List{Value::String(key), value}));
  return Value::Of(std::move(list));
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.is_string()) return static_cast<int64_t>(CodePoints(value.as_string()).size());
  if (value.is_list()) return static_cast<int64_t>(value.as_list().size());
  if (value.is_dict()) return static_cast<int64_t>(value.as_dict().entries.size());
  if (value.is_undefined()) return 0;
  return WrongType("length", "a string, a list or a dict", value);
}

// item.a.b, as the `attribute` arguments of map, join and selectattr have it.
Value AttributeOf(Value item, absl::string_view path) {
  while (!path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    const Value* found = item.is_dict() ? item.as_dict().Find(path.substr(0, dot)) : nullptr;
    item = found != nullptr ? *found : Value::MakeUndefined(std::string(path.substr(0, dot)));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return item;
}

// ---- filters

absl::StatusOr<Value> Join(const Value& input, const Arguments& arguments) {
  LL_ASSIGN_OR_RETURN(const List items, Iterate(input));
  const Value *separator = arguments.Get(0, "d"), *attribute = arguments.Get(1, "attribute");
  std::vector<std::string> texts;
  for (const Value& item : items) {
    texts.push_back(ToText(attribute != nullptr ? AttributeOf(item, ToText(*attribute)) : item));
  }
  return Value::String(absl::StrJoin(texts, separator != nullptr ? ToText(*separator) : ""));
}

// select, reject, selectattr, rejectattr.
absl::StatusOr<Value> Select(const Value& input, const Arguments& arguments, bool by_attribute,
                             bool wanted) {
  LL_ASSIGN_OR_RETURN(const List items, Iterate(input));
  std::vector<Value> rest = arguments.positional;
  std::string attribute;
  if (by_attribute) {
    LL_ASSIGN_OR_RETURN(attribute, TextArgument(arguments, 0, "attribute", "selectattr"));
    rest.erase(rest.begin());
  }
  List out;
  for (const Value& item : items) {
    const Value subject = by_attribute ? AttributeOf(item, attribute) : item;
    bool passes = subject.Truthy();
    if (!rest.empty()) {
      if (!rest[0].is_string()) return WrongType("select", "the name of a test", rest[0]);
      LL_ASSIGN_OR_RETURN(passes,
                          ApplyTest(rest[0].as_string(), subject, {rest.begin() + 1, rest.end()}));
    }
    if (passes == wanted) out.push_back(item);
  }
  return Value::Of(std::move(out));
}

absl::StatusOr<Value> Map(const Value& input, const Arguments& arguments) {
  LL_ASSIGN_OR_RETURN(const List items, Iterate(input));
  const Value* attribute = arguments.Get(99, "attribute");
  List out;
  for (const Value& item : items) {
    if (attribute != nullptr) {
      out.push_back(AttributeOf(item, ToText(*attribute)));
      continue;
    }
    LL_ASSIGN_OR_RETURN(const std::string filter, TextArgument(arguments, 0, "filter", "map"));
    Arguments rest;
    rest.positional.assign(arguments.positional.begin() + 1, arguments.positional.end());
    LL_ASSIGN_OR_RETURN(Value mapped, ApplyFilter(filter, item, rest));
    out.push_back(std::move(mapped));
  }
  return Value::Of(std::move(out));
}

absl::StatusOr<Value> Ends(const Value& input, bool first) {
  LL_ASSIGN_OR_RETURN(const List items, Iterate(input));
  if (items.empty()) return Value::MakeUndefined(first ? "first" : "last");
  return first ? items.front() : items.back();
}

absl::StatusOr<Value> ToInteger(const Value& input, const Arguments& arguments) {
  int64_t number = IntArgument(arguments, 0, "default", 0);
  if (input.is_float()) {
    if (std::fabs(input.as_double()) < 9e18) number = static_cast<int64_t>(input.as_double());
  } else if (input.is_number()) {
    number = input.as_int();
  } else if (input.is_string()) {
    int64_t parsed = 0;
    if (absl::SimpleAtoi(input.as_string(), &parsed)) number = parsed;
  }
  return Value::Int(number);
}

absl::StatusOr<Value> Default(const Value& input, const Arguments& arguments) {
  const Value *fallback = arguments.Get(0, "default_value"),
              *falsy_too = arguments.Get(1, "boolean");
  const bool missing =
      input.is_undefined() || (falsy_too != nullptr && falsy_too->Truthy() && !input.Truthy());
  if (!missing) return input;
  return fallback != nullptr ? *fallback : Value::String("");
}

absl::StatusOr<Value> TextFilter(const std::string& name, const Value& input,
                                 const Arguments& arguments) {
  if (input.is_undefined() && !input.undefined_name().empty())
    return WrongType(absl::StrCat("the filter ", name), "a value", input);
  const std::string text = ToText(input);
  if (name == "upper") return Value::String(Upper(text));
  if (name == "lower") return Value::String(Lower(text));
  if (name == "title") return Value::String(TitleFilter(text));
  if (name == "capitalize") return Value::String(Capitalize(text));
  if (name == "string") return Value::String(text);
  if (name == "replace") return CallMethod(Value::String(text), "replace", arguments);
  return CallMethod(Value::String(text), "strip", arguments);  // trim
}

// ---- methods of strings

absl::StatusOr<Value> StripMethod(const std::string& text, const std::string& name,
                                  const Arguments& arguments) {
  const bool left = name != "rstrip", right = name != "lstrip";
  const Value* chars = arguments.Get(0, "chars");
  if (chars == nullptr || chars->is_none())
    return Value::String(std::string(Strip(text, left, right)));
  if (!chars->is_string()) return WrongType(name, "a string", *chars);
  return Value::String(std::string(StripChars(text, chars->as_string(), left, right)));
}

absl::StatusOr<Value> AffixMethod(const std::string& text, const std::string& name,
                                  const Arguments& arguments) {
  const Value* affixes = arguments.Get(0, "prefix");
  if (affixes == nullptr) return Refuse(absl::StrCat(name, " lacks its argument"));
  const List list = affixes->is_list() ? affixes->as_list() : List{*affixes};
  bool found = false;
  for (const Value& affix : list) {
    if (!affix.is_string()) return WrongType(name, "a string", affix);
    found = found || (name == "startswith" ? absl::StartsWith(text, affix.as_string())
                                           : absl::EndsWith(text, affix.as_string()));
  }
  return Value::Bool(found);
}

absl::StatusOr<Value> SplitMethod(const std::string& text, const Arguments& arguments) {
  const Value* separator = arguments.Get(0, "sep");
  const int64_t limit = IntArgument(arguments, 1, "maxsplit", -1);
  if (separator == nullptr || separator->is_none())
    return Strings(Split(text, std::nullopt, limit));
  if (!separator->is_string() || separator->as_string().empty())
    return WrongType("split", "a separator", *separator);
  return Strings(Split(text, absl::string_view(separator->as_string()), limit));
}

absl::StatusOr<Value> StringMethod(const std::string& text, const std::string& name,
                                   const Arguments& arguments) {
  if (absl::EndsWith(name, "strip")) return StripMethod(text, name, arguments);
  if (absl::EndsWith(name, "with")) return AffixMethod(text, name, arguments);
  if (name == "split") return SplitMethod(text, arguments);
  if (name == "upper") return Value::String(Upper(text));
  if (name == "lower") return Value::String(Lower(text));
  if (name == "title") return Value::String(Title(text));
  if (name == "capitalize") return Value::String(Capitalize(text));
  if (name == "replace") {
    LL_ASSIGN_OR_RETURN(const std::string from, TextArgument(arguments, 0, "old", name));
    LL_ASSIGN_OR_RETURN(const std::string to, TextArgument(arguments, 1, "new", name));
    if (from.empty()) return Refuse("replace expects something to replace, found an empty string");
    return Value::String(Replace(text, from, to, IntArgument(arguments, 2, "count", -1)));
  }
  if (name == "join") {
    LL_ASSIGN_OR_RETURN(const List items,
                        Iterate(arguments.positional.empty() ? Value() : arguments.positional[0]));
    return Join(Value::Of(items), {{Value::String(text)}, {}});
  }
  LL_ASSIGN_OR_RETURN(const std::string part, TextArgument(arguments, 0, "sub", name));
  const size_t at = text.find(part);  // find
  if (at == std::string::npos) return Value::Int(-1);
  return Value::Int(static_cast<int64_t>(CodePoints(text.substr(0, at)).size()));
}

absl::StatusOr<Value> DictMethod(const Dict& dict, const std::string& name,
                                 const Arguments& arguments) {
  if (name == "items") return Items(dict);
  if (name == "get") {
    LL_ASSIGN_OR_RETURN(const std::string key, TextArgument(arguments, 0, "key", "get"));
    const Value *found = dict.Find(key), *fallback = arguments.Get(1, "default");
    return found != nullptr ? *found : fallback != nullptr ? *fallback : Value::MakeNone();
  }
  List list;
  for (const auto& [key, value] : dict.entries)
    list.push_back(name == "keys" ? Value::String(key) : value);
  return Value::Of(std::move(list));
}

// ---- tests

using Test = bool (*)(const Value&);
const std::map<std::string, Test>& PlainTests() {
  static const auto& tests = *new std::map<std::string, Test>{
      {"defined", [](const Value& v) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v) { return v.is_undefined(); }},
      {"none", [](const Value& v) { return v.is_none(); }},
      {"string", [](const Value& v) { return v.is_string(); }},
      {"mapping", [](const Value& v) { return v.is_dict(); }},
      {"boolean", [](const Value& v) { return v.is_bool(); }},
      {"integer", [](const Value& v) { return v.is_int(); }},
      {"float", [](const Value& v) { return v.is_float(); }},
      {"number", [](const Value& v) { return v.is_number(); }},
      {"true", [](const Value& v) { return v.is_bool() && v.as_bool(); }},
      {"false", [](const Value& v) { return v.is_bool() && !v.as_bool(); }},
      {"callable", [](const Value& v) { return v.is_callable(); }},
      {"iterable",
       [](const Value& v) {
         return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
       }},
      {"sequence",
       [](const Value& v) {
         return v.is_string() || v.is_list() || v.is_dict() || v.is_undefined();
       }},
      {"lower", [](const Value& v) { return v.is_string() && Lower(ToText(v)) == ToText(v); }},
      {"upper", [](const Value& v) { return v.is_string() && Upper(ToText(v)) == ToText(v); }},
  };
  return tests;
}

absl::StatusOr<bool> DivisibleBy(const Value& input, const Value& divisor) {
  if (input.is_float() || !input.is_number() || divisor.is_float() || !divisor.is_number() ||
      divisor.as_int() == 0) {
    return Refuse("divisibleby expects integers, and no division by zero");
  }
  // The one quotient that does not fit is of the least integer by -1, which divides everything.
  return divisor.as_int() == -1 || input.as_int() % divisor.as_int() == 0;
}

}  // namespace

const Value* Arguments::Get(size_t index, absl::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& input,
                                  const Arguments& arguments) {
  static const std::vector<std::string> kText = {"trim",       "upper",   "lower", "title",
                                                 "capitalize", "replace", "string"};
  if (std::find(kText.begin(), kText.end(), name) != kText.end())
    return TextFilter(name, input, arguments);
  if (name == "tojson") {
    if (input.is_undefined()) return WrongType("the filter tojson", "a value", input);
    const int64_t indent = IntArgument(arguments, 0, "indent", -1);
    return Value::String(ToJsonText(input, static_cast<int>(std::clamp<int64_t>(indent, -1, 16))));
  }
  if (name == "length" || name == "count") {
    LL_ASSIGN_OR_RETURN(const int64_t length, Length(input));
    return Value::Int(length);
  }
  if (name == "default" || name == "d") return Default(input, arguments);
  if (name == "first" || name == "last") return Ends(input, name == "first");
  if (name == "join") return Join(input, arguments);
  if (name == "selectattr" || name == "rejectattr")
    return Select(input, arguments, true, name == "selectattr");
  if (name == "select" || name == "reject")
    return Select(input, arguments, false, name == "select");
  if (name == "map") return Map(input, arguments);
  if (name == "int") return ToInteger(input, arguments);
  if (name == "items" && (input.is_dict() || input.is_undefined()))
    return input.is_dict() ? Items(input.as_dict()) : Value::Of(List{});
  if (name == "list" || name == "reverse") {
    LL_ASSIGN_OR_RETURN(List items, Iterate(input));
    if (name == "list") return Value::Of(std::move(items));
    std::reverse(items.begin(), items.end());
    if (!input.is_string()) return Value::Of(std::move(items));
    return Join(Value::Of(std::move(items)), {});
  }
  return Refuse(absl::StrCat("unknown filter \"", name, "\""));
}

absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& input,
                               const std::vector<Value>& arguments) {
  const auto plain = PlainTests().find(name);
  if (plain != PlainTests().end()) return plain->second(input);
  if (name == "odd" || name == "even") {
    LL_ASSIGN_OR_RETURN(const bool even, DivisibleBy(input, Value::Int(2)));
    return even == (name == "even");
  }
  static const std::map<std::string, std::string> kComparisons = {
      {"equalto", "=="}, {"eq", "=="}, {"==", "=="},        {"ne", "!="}, {"!=", "!="},
      {"in", "in"},      {"lt", "<"},  {"lessthan", "<"},   {"gt", ">"},  {"greaterthan", ">"},
      {"le", "<="},      {"ge", ">="}, {"divisibleby", "%"}};
  const auto found = kComparisons.find(name);
  if (found == kComparisons.end()) return Refuse(absl::StrCat("unknown test \"", name, "\""));
  if (arguments.size() != 1) return Refuse(absl::StrCat("the test ", name, " takes one argument"));
  const Value& other = arguments[0];
  if (found->second == "==") return Equals(input, other);
  if (found->second == "!=") return !Equals(input, other);
  if (found->second == "in") return Contains(other, input);
  if (found->second == "<") return Less(input, other);
  if (found->second == ">") return Less(other, input);
  if (found->second == "%") return DivisibleBy(input, other);
  LL_ASSIGN_OR_RETURN(const bool beyond,
                      found->second == "<=" ? Less(other, input) : Less(input, other));
  return !beyond;
}

bool IsMethod(const Value& self, const std::string& name) {
  static const std::vector<std::string> kString = {
      "strip", "lstrip", "rstrip",     "startswith", "endswith", "split", "upper",
      "lower", "title",  "capitalize", "replace",    "find",     "join"};
  static const std::vector<std::string> kDict = {"items", "keys", "values", "get"};
  if (!self.is_string() && !self.is_dict()) return false;
  const std::vector<std::string>& names = self.is_string() ? kString : kDict;
  return std::find(names.begin(), names.end(), name) != names.end();
}

absl::StatusOr<Value> CallMethod(const Value& self, const std::string& name,
                                 const Arguments& arguments) {
  if (self.is_string()) return StringMethod(self.as_string(), name, arguments);
  return DictMethod(self.as_dict(), name, arguments);
}

absl::StatusOr<List> Iterate(const Value& value) {
  if (value.is_list()) return value.as_list();
  List out;
  if (value.is_undefined()) return out;
  if (value.is_dict()) {
    for (const auto& entry : value.as_dict().entries) out.push_back(Value::String(entry.first));
    return out;
  }
  if (!value.is_string()) return WrongType("a loop", "a list, a dict or a string", value);
  for (const absl::string_view c : CodePoints(value.as_string()))
    out.push_back(Value::String(std::string(c)));
  return out;
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) return WrongType("in", "a string to look for", item);
    return absl::StrContains(container.as_string(), item.as_string());
  }
  if (container.is_dict())
    return item.is_string() && container.as_dict().Find(item.as_string()) != nullptr;
  if (container.is_undefined()) return false;
  if (!container.is_list()) return WrongType("in", "a string, a list or a dict", container);
  for (const Value& candidate : container.as_list()) {
    if (Equals(candidate, item)) return true;
  }
  return false;
}

absl::StatusOr<bool> Less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_double() < b.as_double() : a.as_int() < b.as_int();
  }
  if (a.is_string() && b.is_string()) return a.as_string() < b.as_string();
  return WrongType("a comparison", "two numbers or two strings", a.is_number() ? b : a);
}

}  // namespace ll::jinja
