#include "model/chat/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace ll::jinja {
namespace {

// Python's repr of a float: the shortest digits that read back equal, in exponent form outside
// 1e-4 … 1e16.
std::string FloatText(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d < 0 ? "-inf" : "inf";
  char buffer[64];
  const double magnitude = std::fabs(d);
  const bool exponent = magnitude != 0 && (magnitude < 1e-4 || magnitude >= 1e16);
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), d,
                    exponent ? std::chars_format::scientific : std::chars_format::fixed)
          .ptr;
  std::string text(buffer, end);
  if (!exponent && text.find('.') == std::string::npos) text += ".0";
  return text;
}

// Python's repr of a string, for strings inside printed lists and dicts.
std::string Repr(const std::string& s) {
  const char quote =
      s.find('\'') != std::string::npos && s.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : s) {
    if (c == quote || c == '\\') {
      out += '\\';
      out += c;
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else {
      out += c;
    }
  }
  return out + quote;
}

std::string JsonString(const std::string& s) {
  return nlohmann::json(s).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Inner(const Value& value) {
  return value.is_string() ? Repr(value.as_string()) : ToText(value);
}

void AppendJson(const Value& value, int indent, int depth, std::string& out) {
  const std::string newline =
      indent < 0 ? "" : "\n" + std::string(static_cast<size_t>(indent) * (depth + 1), ' ');
  const std::string last =
      indent < 0 ? "" : "\n" + std::string(static_cast<size_t>(indent) * depth, ' ');
  const char* comma = indent < 0 ? ", " : ",";
  if (value.is_string()) {
    out += JsonString(value.as_string());
  } else if (value.is_bool()) {
    out += value.as_bool() ? "true" : "false";
  } else if (value.is_list() && !value.as_list().empty()) {
    const char* separator = "[";
    for (const Value& item : value.as_list()) {
      absl::StrAppend(&out, separator, newline);
      AppendJson(item, indent, depth + 1, out);
      separator = comma;
    }
    absl::StrAppend(&out, last, "]");
  } else if (value.is_dict() && !value.as_dict().entries.empty()) {
    const char* separator = "{";
    for (const auto& [key, item] : value.as_dict().entries) {
      absl::StrAppend(&out, separator, newline, JsonString(key), ": ");
      AppendJson(item, indent, depth + 1, out);
      separator = comma;
    }
    absl::StrAppend(&out, last, "}");
  } else if (value.is_list() || value.is_dict() || value.is_int() || value.is_float()) {
    out += ToText(value);
  } else {
    out += "null";
  }
}

}  // namespace

const Value* Dict::Find(absl::string_view key) const {
  for (const auto& [name, value] : entries) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::Set(const std::string& key, Value value) {
  for (auto& [name, old] : entries) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  entries.emplace_back(key, std::move(value));
}

Value Value::Of(List list) {
  int depth = 0;
  for (const Value& item : list) depth = std::max(depth, item.depth_);
  Value out(std::make_shared<const List>(std::move(list)));
  out.depth_ = depth + 1;
  return out;
}

Value Value::Of(Dict dict) {
  int depth = 0;
  for (const auto& entry : dict.entries) depth = std::max(depth, entry.second.depth_);
  Value out(std::make_shared<const Dict>(std::move(dict)));
  out.depth_ = depth + 1;
  return out;
}

bool Value::Truthy() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return as_double() != 0;
  if (is_string()) return !as_string().empty();
  if (is_list()) return !as_list().empty();
  if (is_dict()) return !as_dict().entries.empty();
  return true;
}

const char* Value::TypeName() const {
  static const char* const kNames[] = {
      "an undefined value", "none",   "a truth value", "an integer",  "a number",
      "a string",           "a list", "a dict",        "a namespace", "a function"};
  return kNames[data_.index()];
}

bool Equals(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_float() || b.is_float() ? a.as_double() == b.as_double() : a.as_int() == b.as_int();
  }
  if (a.is_string() && b.is_string()) return a.as_string() == b.as_string();
  if (a.is_list() && b.is_list()) {
    const List &x = a.as_list(), &y = b.as_list();
    if (x.size() != y.size()) return false;
    for (size_t i = 0; i < x.size(); ++i) {
      if (!Equals(x[i], y[i])) return false;
    }
    return true;
  }
  if (a.is_dict() && b.is_dict()) {
    if (a.as_dict().entries.size() != b.as_dict().entries.size()) return false;
    for (const auto& [key, value] : a.as_dict().entries) {
      const Value* other = b.as_dict().Find(key);
      if (other == nullptr || !Equals(value, *other)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::string ToText(const Value& value) {
  if (value.is_string()) return value.as_string();
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.as_bool() ? "True" : "False";
  if (value.is_int()) return absl::StrCat(value.as_int());
  if (value.is_float()) return FloatText(value.as_double());
  if (value.is_list()) {
    std::string out = "[";
    for (const Value& item : value.as_list()) {
      absl::StrAppend(&out, out.size() > 1 ? ", " : "", Inner(item));
    }
    return out + "]";
  }
  if (value.is_dict()) {
    std::string out = "{";
    for (const auto& [key, item] : value.as_dict().entries) {
      absl::StrAppend(&out, out.size() > 1 ? ", " : "", Repr(key), ": ", Inner(item));
    }
    return out + "}";
  }
  return "";  // undefined; the interpreter refuses to print namespaces and functions
}

std::string ToJsonText(const Value& value, int indent) {
  std::string out;
  AppendJson(value, indent, 0, out);
  return out;
}

}  // namespace ll::jinja
