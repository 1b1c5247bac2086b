// Text <-> JobSpec. YAML and JSON are first brought to one form (RawValue), then typed by the
// table.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "model/spec/spec_fields.h"
#include "yaml-cpp/yaml.h"

namespace ll {
namespace {

constexpr size_t kMaxSpecBytes = 1 << 20;

// A value before its type is known.
struct RawValue {
  enum class Shape { kNull, kScalar, kList, kMap, kNested } shape = Shape::kNull;
  std::string scalar;
  bool quoted = false;  // written as a string: must not become a number or a truth value
  std::vector<std::string> list;
  std::vector<std::pair<std::string, std::string>> map;
  int line = 0;  // 1-based; 0 where unknown
};

std::string Describe(const RawValue& value) {
  switch (value.shape) {
    case RawValue::Shape::kNull:
      return "nothing";
    case RawValue::Shape::kScalar:
      return absl::StrCat("\"", OneLine(value.scalar.substr(0, 80)), "\"");
    case RawValue::Shape::kList:
      return "a list";
    case RawValue::Shape::kMap:
      return "a map";
    case RawValue::Shape::kNested:
      return "nested lists or maps";
  }
  return "";
}

absl::Status AtLine(const absl::Status& status, int line) {
  return line > 0 && !status.ok() ? Annotate(status, absl::StrCat("line ", line)) : status;
}

absl::Status WrongType(const SpecField& field, const RawValue& value) {
  return AtLine(MakeFieldError({field.name, DescribeType(field), Describe(value)}), value.line);
}

bool ParseBool(const std::string& text, bool& out) {
  static const std::set<std::string> kTrue = {"true", "True", "TRUE", "yes", "on"};
  static const std::set<std::string> kFalse = {"false", "False", "FALSE", "no", "off"};
  out = kTrue.count(text) > 0;
  return out || kFalse.count(text) > 0;
}

bool ParseSeconds(const std::string& text, int64_t& out) {
  absl::Duration duration;
  if (absl::SimpleAtoi(text, &out)) return true;
  if (!absl::ParseDuration(text, &duration) || duration == absl::InfiniteDuration()) return false;
  out = absl::ToInt64Seconds(duration);
  return true;
}

// Accepts "8192" and, as YAML writers print them, "8192.0" and "1e3".
bool ParseInteger(const std::string& text, int64_t& out) {
  if (absl::SimpleAtoi(text, &out)) return true;
  double number;
  if (!absl::SimpleAtod(text, &number) || std::floor(number) != number || std::fabs(number) > 9e15)
    return false;
  out = static_cast<int64_t>(number);
  return true;
}

// "4-8".
bool ParseRange(const std::string& text, int64_t& from, int64_t& to) {
  const std::vector<std::string> ends = absl::StrSplit(text, '-');
  return ends.size() == 2 && absl::SimpleAtoi(ends[0], &from) && absl::SimpleAtoi(ends[1], &to);
}

bool IsRange(const SpecField& field, const RawValue& value) {
  int64_t from, to;
  return !field.range_end.empty() && value.shape == RawValue::Shape::kScalar &&
         ParseRange(value.scalar, from, to);
}

absl::Status SetRaw(JobSpec& spec, const SpecField& field, const RawValue& value);

// Writes `value` into the field's member; the wrong type is an error.
struct Assign {
  JobSpec& spec;
  const SpecField& field;
  const RawValue& value;

  bool PlainScalar() const { return value.shape == RawValue::Shape::kScalar && !value.quoted; }

  absl::Status operator()(std::optional<std::string> JobSpec::*m) const {
    if (value.shape != RawValue::Shape::kScalar) return WrongType(field, value);
    spec.*m = value.scalar;
    return absl::OkStatus();
  }
  absl::Status operator()(std::optional<int64_t> JobSpec::*m) const {
    int64_t number;
    if (IsRange(field, value)) {
      int64_t end;
      ParseRange(value.scalar, number, end);
      spec.*m = number;
      return SetRaw(spec, *FindSpecField(field.range_end),
                    {.shape = RawValue::Shape::kScalar, .scalar = absl::StrCat(end)});
    }
    bool ok = field.seconds
                  ? value.shape == RawValue::Shape::kScalar && ParseSeconds(value.scalar, number)
                  : PlainScalar() && ParseInteger(value.scalar, number);
    if (!ok) return WrongType(field, value);
    spec.*m = number;
    return absl::OkStatus();
  }
  absl::Status operator()(std::optional<double> JobSpec::*m) const {
    double number;
    if (!PlainScalar() || !absl::SimpleAtod(value.scalar, &number) || !std::isfinite(number)) {
      return WrongType(field, value);
    }
    spec.*m = number;
    return absl::OkStatus();
  }
  absl::Status operator()(std::optional<bool> JobSpec::*m) const {
    bool truth;
    if (!PlainScalar() || !ParseBool(value.scalar, truth)) return WrongType(field, value);
    spec.*m = truth;
    return absl::OkStatus();
  }
  absl::Status operator()(std::vector<std::string> JobSpec::*m) const {
    std::vector<std::string> items = value.list;
    if (value.shape == RawValue::Shape::kScalar) {  // LongLoRA writes "embed,norm"
      for (absl::string_view item : absl::StrSplit(value.scalar, ',', absl::SkipWhitespace())) {
        items.emplace_back(absl::StripAsciiWhitespace(item));
      }
    } else if (value.shape != RawValue::Shape::kList) {
      return WrongType(field, value);
    }
    spec.*m = items;
    return absl::OkStatus();
  }
  absl::Status operator()(std::vector<int64_t> JobSpec::*m) const {
    std::vector<std::string> items = value.list;
    if (PlainScalar()) items = absl::StrSplit(value.scalar, ',', absl::SkipWhitespace());
    if (value.shape != RawValue::Shape::kList && !PlainScalar()) return WrongType(field, value);
    std::vector<int64_t> numbers;
    for (const std::string& item : items) {
      if (!ParseInteger(std::string(absl::StripAsciiWhitespace(item)), numbers.emplace_back())) {
        return WrongType(field,
                         {.shape = RawValue::Shape::kScalar, .scalar = item, .line = value.line});
      }
    }
    spec.*m = numbers;
    return absl::OkStatus();
  }
  absl::Status operator()(std::map<std::string, std::string> JobSpec::*m) const {
    auto pairs = value.map;
    if (value.shape == RawValue::Shape::kScalar) {
      for (absl::string_view item : absl::StrSplit(value.scalar, ',', absl::SkipWhitespace())) {
        std::pair<std::string, std::string> pair = absl::StrSplit(item, absl::MaxSplits('=', 1));
        pairs.emplace_back(absl::StripAsciiWhitespace(pair.first),
                           absl::StripAsciiWhitespace(pair.second));
      }
    } else if (value.shape != RawValue::Shape::kMap) {
      return WrongType(field, value);
    }
    std::map<std::string, std::string> map;
    for (const auto& [key, text] : pairs) {
      if (!map.emplace(key, text).second) {
        return AtLine(FieldStatus(absl::StatusCode::kInvalidArgument, field.name,
                                  absl::StrCat("key ", OneLine(key), " is given twice")),
                      value.line);
      }
    }
    spec.*m = std::move(map);
    return absl::OkStatus();
  }
};

struct Clear {
  JobSpec& spec;
  template <typename T>
  void operator()(T JobSpec::*m) const {
    spec.*m = T();
  }
};

absl::Status SetRaw(JobSpec& spec, const SpecField& field, const RawValue& value) {
  if (value.shape == RawValue::Shape::kNull) {
    std::visit(Clear{spec}, field.member);
    return absl::OkStatus();
  }
  return std::visit(Assign{spec, field, value}, field.member);
}

absl::Status UnknownKey(absl::string_view key, int line) {
  std::string nearest = NearestSpecKey(key);
  return AtLine(FieldStatus(absl::StatusCode::kInvalidArgument, key.substr(0, 80), "unknown key",
                            nearest.empty() ? "" : absl::StrCat("did you mean ", nearest, "?")),
                line);
}

// ---- LongQLoRA's and Hugging Face's keys that are not plain aliases

// Keys without an effect here, each with the reason that its user reads.
const std::map<std::string, std::string>& IgnoredKeys() {
  static const auto& keys = *new std::map<std::string, std::string>{
      {"output_dir", "the job's folder is chosen by the service, or by --out"},
      {"overwrite_output_dir", "a job resumes in its folder and never overwrites it"},
      {"logging_dir", "losses go to events.jsonl and to the metrics"},
      {"report_to", "losses go to events.jsonl and to the metrics"},
      {"disable_tqdm", "there is no progress bar to turn off"},
      {"deepspeed", "memory is planned by forecast; there is no ZeRO stage to choose"},
      {"optim", "the optimizer is AdamW with fp32 moments"},
      {"dataloader_num_workers", "token files are mapped, so nothing is loaded ahead"},
      {"remove_unused_columns", "token files have no columns"},
      {"group_by_length", "rows are visited in a seeded permutation"},
      {"save_strategy", "save_steps alone decides"},
      {"evaluation_strategy", "eval_steps alone decides"},
      {"per_device_eval_batch_size", "evaluation runs one window at a time"},
      {"use_flash_attn", "attention is fused wherever the device can"},
      {"cache_dir", "models are registered folders"},
      {"model_type", "config.json says it"},
      {"tf32", "products are in bf16, sums in fp32"},
      {"ddp_timeout", "the time limits of the ranks are the service's"},
      {"ddp_find_unused_parameters", "every trainable parameter is used"}};
  return keys;
}

void AddTrainable(JobSpec& spec, const std::string& what, bool on) {
  auto& list = spec.trainable;
  list.erase(
      std::remove_if(list.begin(), list.end(),
                     [&](const std::string& item) { return item == what || item == "none"; }),
      list.end());
  if (on) list.push_back(what);
  if (list.empty()) list.push_back("none");
}

// Handles such a key; false where the key is not one of them.
absl::StatusOr<bool> SetForeignKey(JobSpec& spec, const std::string& key, const RawValue& value,
                                   std::vector<std::string>& notes) {
  if (const auto ignored = IgnoredKeys().find(key); ignored != IgnoredKeys().end()) {
    notes.push_back(absl::StrCat(key, " is ignored: ", ignored->second));
    return true;
  }
  bool on = false;
  static const std::set<std::string> kSwitches = {
      "train_embedding",        "train_norm",   "bf16", "fp16", "low_rank_training",
      "gradient_checkpointing", "use_full_attn"};
  if (kSwitches.count(key) == 0) return false;
  if (value.shape != RawValue::Shape::kScalar || value.quoted || !ParseBool(value.scalar, on)) {
    return AtLine(MakeFieldError({key, "true or false", Describe(value)}), value.line);
  }
  if (key == "train_embedding") AddTrainable(spec, "embed", on);
  if (key == "train_norm") AddTrainable(spec, "norm", on);
  if (key == "gradient_checkpointing") spec.recompute = on ? "full" : "none";
  if (key == "low_rank_training" && !on) spec.method = "full";
  if (key == "use_full_attn" && on) spec.attention = "full";
  if (key == "bf16" && on) spec.precision = "bf16";
  if (key == "fp16" && on) {
    spec.precision = "bf16";
    notes.push_back("fp16 is trained as bf16, which needs no loss scaling");
  }
  return true;
}

// LongQLoRA's files name no method, and the default would train another model than they mean.
bool IsLongQlorasOwn(const std::string& key, const RawValue& value) {
  return key == "train_embedding" || key == "train_norm" ||
         (key == "optim" && absl::StartsWith(value.scalar, "paged_adamw"));
}

// ---- readers

using RawMap = std::vector<std::pair<std::string, RawValue>>;

RawValue FromYaml(const YAML::Node& node) {
  RawValue value;
  value.line = node.Mark().line + 1;
  if (node.IsNull() || !node.IsDefined()) return value;
  if (node.IsScalar()) {
    value.shape = RawValue::Shape::kScalar;
    value.scalar = node.Scalar();
    value.quoted = node.Tag() == "!";
    return value;
  }
  value.shape = node.IsSequence() ? RawValue::Shape::kList : RawValue::Shape::kMap;
  for (const auto& item : node) {
    const bool flat =
        node.IsSequence() ? item.IsScalar() : item.first.IsScalar() && item.second.IsScalar();
    if (!flat) {
      value.shape = RawValue::Shape::kNested;
    } else if (node.IsSequence()) {
      value.list.push_back(item.Scalar());
    } else {
      value.map.emplace_back(item.first.Scalar(), item.second.Scalar());
    }
  }
  return value;
}

absl::StatusOr<RawMap> ReadYaml(const std::string& text) {
  RawMap out;
  try {
    YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return out;
    if (!root.IsMap())
      return absl::InvalidArgumentError("job spec: expected a mapping of keys to values");
    for (const auto& item : root) {
      if (!item.first.IsScalar())
        return absl::InvalidArgumentError("job spec: expected keys that are plain text");
      out.emplace_back(item.first.Scalar(), FromYaml(item.second));
    }
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(
        absl::StrCat("job spec: line ", e.mark.line + 1, ": not valid YAML: ", OneLine(e.msg)));
  }
  return out;
}

std::string JsonScalar(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

RawValue FromJson(const nlohmann::json& node) {
  RawValue value;
  if (node.is_null()) return value;
  if (!node.is_structured()) {
    value.shape = RawValue::Shape::kScalar;
    value.scalar = JsonScalar(node);
    value.quoted = node.is_string();
    return value;
  }
  value.shape = node.is_array() ? RawValue::Shape::kList : RawValue::Shape::kMap;
  for (const auto& [key, item] : node.items()) {
    if (item.is_structured()) {
      value.shape = RawValue::Shape::kNested;
    } else if (node.is_array()) {
      value.list.push_back(JsonScalar(item));
    } else {
      value.map.emplace_back(key, JsonScalar(item));
    }
  }
  return value;
}

absl::StatusOr<RawMap> ReadJson(const std::string& text) {
  const auto root = ParseJsonObject(text);
  if (!root.ok()) return Annotate(root.status(), "job spec");
  RawMap out;
  for (const auto& [key, value] : root->items()) out.emplace_back(key, FromJson(value));
  return out;
}

// ---- writers

struct ToJsonValue {
  const JobSpec& spec;
  template <typename T>
  nlohmann::ordered_json operator()(std::optional<T> JobSpec::*m) const {
    return *(spec.*m);
  }
  template <typename T>
  nlohmann::ordered_json operator()(T JobSpec::*m) const {
    return spec.*m;
  }
};

// dump() throws on text that is not UTF-8 unless it is told to replace.
std::string Dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

absl::StatusOr<JobSpec> ParseJobSpec(absl::string_view text, std::vector<std::string>* notes) {
  if (text.size() > kMaxSpecBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("job spec: expected at most ", kMaxSpecBytes, " bytes, found ", text.size()));
  }
  if (!IsValidUtf8(text))
    return absl::InvalidArgumentError("job spec: expected UTF-8, found other bytes");
  const bool is_json = absl::StartsWith(absl::StripLeadingAsciiWhitespace(text), "{");
  LL_ASSIGN_OR_RETURN(RawMap values,
                      is_json ? ReadJson(std::string(text)) : ReadYaml(std::string(text)));
  JobSpec spec;
  std::vector<std::string> ignored;
  std::vector<std::string>& sink = notes != nullptr ? *notes : ignored;
  std::set<std::string> seen;
  bool longqlora = false;
  for (const auto& [key, value] : values) {
    longqlora = longqlora || IsLongQlorasOwn(key, value);
    const SpecField* field = FindSpecField(key);
    if (!seen.insert(field != nullptr ? field->name : key).second) {
      return AtLine(FieldStatus(absl::StatusCode::kInvalidArgument, key, "given twice"),
                    value.line);
    }
    if (field != nullptr && IsRange(*field, value) && !seen.insert(field->range_end).second) {
      return AtLine(FieldStatus(absl::StatusCode::kInvalidArgument, field->range_end,
                                absl::StrCat("given twice: ", key, " has it too")),
                    value.line);
    }
    if (field != nullptr) {
      LL_RETURN_IF_ERROR(SetRaw(spec, *field, value));
      continue;
    }
    LL_ASSIGN_OR_RETURN(bool known, SetForeignKey(spec, key, value, sink));
    if (!known) return UnknownKey(key, value.line);
  }
  if (longqlora && !spec.method) {
    spec.method = "longqlora";
    sink.push_back("method is longqlora: the keys are those of LongQLoRA's train_args");
  }
  return spec;
}

absl::Status SetField(JobSpec& spec, absl::string_view key, absl::string_view value_text) {
  const SpecField* field = FindSpecField(key);
  if (field == nullptr) return UnknownKey(key, 0);
  if (!IsValidUtf8(value_text)) return MakeFieldError({field->name, "UTF-8", "other bytes"});
  RawValue value;
  if (!value_text.empty()) {
    value.shape = RawValue::Shape::kScalar;
    value.scalar = std::string(value_text);
  }
  // One number takes the range away that a file gave.
  if (!field->range_end.empty())
    LL_RETURN_IF_ERROR(SetRaw(spec, *FindSpecField(field->range_end), RawValue()));
  return SetRaw(spec, *field, value);
}

nlohmann::ordered_json ToJson(const JobSpec& spec) {
  nlohmann::ordered_json out = nlohmann::ordered_json::object();
  for (const SpecField& field : SpecFields()) {
    if (IsGiven(spec, field)) out[field.name] = std::visit(ToJsonValue{spec}, field.member);
  }
  return out;
}

std::string ToYaml(const JobSpec& spec) {
  // Each value in JSON's notation, which is YAML too and needs no guessing about quotes.
  std::string out;
  const nlohmann::ordered_json json = ToJson(spec);
  for (const auto& [key, value] : json.items()) {
    absl::StrAppend(&out, key, ": ", Dump(value), "\n");
  }
  return out;
}

std::vector<std::string> Differences(const JobSpec& from, const JobSpec& to) {
  auto show = [](const JobSpec& spec, const SpecField& field) {
    return IsGiven(spec, field) ? Dump(std::visit(ToJsonValue{spec}, field.member))
                                : std::string("(not given)");
  };
  std::vector<std::string> out;
  for (const SpecField& field : SpecFields()) {
    std::string a = show(from, field), b = show(to, field);
    if (a != b) out.push_back(absl::StrCat(field.name, ": ", a, " -> ", b));
  }
  return out;
}

}  // namespace ll
