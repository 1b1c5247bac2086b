#include "base/json.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

using nlohmann::json;

// Builds the value as the parser reports its parts, and stops at the first that is against the
// rules. nlohmann's own builder keeps the last of two equal keys and knows no limits.
class Builder : public json::json_sax_t {
 public:
  Builder(absl::string_view text, const JsonLimits& limits) : text_(text), limits_(limits) {}

  json TakeRoot() { return std::move(root_); }
  const absl::Status& status() const { return status_; }

  bool null() override { return Put(json()) != nullptr; }
  bool boolean(bool value) override { return Put(json(value)) != nullptr; }
  bool number_integer(number_integer_t value) override { return Put(json(value)) != nullptr; }
  bool number_unsigned(number_unsigned_t value) override { return Put(json(value)) != nullptr; }
  bool number_float(number_float_t value, const string_t&) override {
    return Put(json(value)) != nullptr;
  }
  bool string(string_t& value) override { return Put(json(std::move(value))) != nullptr; }
  bool binary(binary_t&) override { return Fail("expected a JSON object, found binary data"); }
  bool start_object(size_t) override { return Open(json::object()); }
  bool start_array(size_t) override { return Open(json::array()); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }

  bool key(string_t& name) override {
    const auto [at, is_new] = open_.back()->emplace(std::move(name), json());
    if (!is_new) {
      status_ =
          FieldStatus(absl::StatusCode::kInvalidArgument, at.key().substr(0, 80), "given twice");
      return false;
    }
    member_ = &at.value();
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    const size_t end = std::min(text_.size(), position > 0 ? position - 1 : 0);
    const absl::string_view before = text_.substr(0, end);
    const size_t line_start = before.rfind('\n') + 1;  // npos + 1 is 0
    // 406: a number beyond the range of a double.
    return Fail(absl::StrCat("expected a JSON object, found ",
                             error.id == 406 ? "a number out of range" : "a syntax error",
                             " at line ", 1 + std::count(before.begin(), before.end(), '\n'),
                             ", column ", 1 + before.size() - line_start));
  }

 private:
  bool Fail(std::string message) {
    status_ = absl::InvalidArgumentError(message);
    return false;
  }

  json* Put(json value) {
    if (++values_ > limits_.max_values) {
      Fail(absl::StrCat("expected at most ", limits_.max_values, " JSON values, found more"));
      return nullptr;
    }
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (open_.back()->is_array()) return &open_.back()->emplace_back(std::move(value));
    *member_ = std::move(value);
    return member_;
  }

  bool Open(json empty) {
    if (open_.size() >= static_cast<size_t>(limits_.max_depth)) {
      return Fail(
          absl::StrCat("expected at most ", limits_.max_depth, " levels of JSON, found more"));
    }
    json* place = Put(std::move(empty));
    if (place == nullptr) return false;
    open_.push_back(place);
    return true;
  }

  bool Close() {
    open_.pop_back();
    return true;
  }

  const absl::string_view text_;
  const JsonLimits limits_;
  json root_;
  std::vector<json*>
      open_;  // a parent does not change while its child is open, so the child stays where it is
  json* member_ = nullptr;  // of the innermost object: where the value of the last key goes
  int64_t values_ = 0;
  absl::Status status_;
};

// Whether the value has no more than `budget` bytes and values: what is longer is not printed to be
// cut.
bool IsShort(const json& value, size_t& budget) {
  const size_t cost = value.is_string() ? value.get_ref<const std::string&>().size() + 1 : 1;
  if (cost > budget) return false;
  budget -= cost;
  if (!value.is_structured()) return true;
  return std::all_of(value.begin(), value.end(),
                     [&](const json& item) { return IsShort(item, budget); });
}

}  // namespace

absl::StatusOr<json> ParseJsonObject(absl::string_view text, const JsonLimits& limits) {
  Builder builder(text, limits);
  const bool parsed = json::sax_parse(text.begin(), text.end(), &builder);
  LL_RETURN_IF_ERROR(builder.status());
  json root = builder.TakeRoot();
  if (!parsed || !root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected a JSON object, found ", root.is_array() ? "a list" : "another kind of value"));
  }
  return root;
}

std::string JsonExcerpt(const json& value, size_t max_bytes) {
  size_t budget = max_bytes;
  if (!IsShort(value, budget)) {
    if (value.is_string())
      return JsonExcerpt(json(value.get_ref<const std::string&>().substr(0, max_bytes / 2)));
    return absl::StrCat(value.is_array() ? "a list of " : "an object of ", value.size());
  }
  return value.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace)
      .substr(0, max_bytes);
}

}  // namespace ll
