// What templates call: filters, tests, methods of strings and dicts. Pure functions of values.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "model/chat/jinja/value.h"

namespace ll::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
  // The argument at `index` or of that name; nullptr where it is not given.
  const Value* Get(size_t index, absl::string_view name) const;
};

// Errors are one clause without a line: an unknown name, arguments of a type it does not take.
absl::StatusOr<Value> ApplyFilter(const std::string& name, const Value& input,
                                  const Arguments& arguments);
absl::StatusOr<bool> ApplyTest(const std::string& name, const Value& input,
                               const std::vector<Value>& arguments);
bool IsMethod(const Value& self, const std::string& name);
absl::StatusOr<Value> CallMethod(const Value& self, const std::string& name,
                                 const Arguments& arguments);

// What a `for` goes through: a list's items, a dict's keys, a string's characters, nothing of an
// undefined value.
absl::StatusOr<List> Iterate(const Value& value);
// Python's `a in b`.
absl::StatusOr<bool> Contains(const Value& container, const Value& item);
// a < b. Numbers with numbers, strings with strings.
absl::StatusOr<bool> Less(const Value& a, const Value& b);

}  // namespace ll::jinja
