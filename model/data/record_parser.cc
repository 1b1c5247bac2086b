#include "model/data/record_parser.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"
#include "model/text/unicode.h"
#include "nlohmann/json.hpp"

namespace ll {
namespace {

using nlohmann::json;

// Faults of one record.
class Place {
 public:
  Place(const std::string& file, int64_t line) : field_(RecordPlace(file, line)) {}
  absl::Status Fault(absl::string_view member, absl::string_view expected,
                     absl::string_view found) const {
    return MakeFieldError(
        {member.empty() ? field_ : absl::StrCat(field_, " ", member), expected, found});
  }
  // An error of the JSON reader.
  absl::Status At(const absl::Status& status) const {
    // Of an object on one line the reader's "line 1" is not the file's.
    absl::Status out = absl::Status(
        status.code(), absl::StrCat(field_, ": ",
                                    absl::StrReplaceAll(status.message(),
                                                        {{"at line 1, column ", "at column "}})));
    SetErrorHint(out, ErrorHint(status));
    SetErrorField(out, field_);
    return out;
  }

 private:
  std::string field_;
};

// A part of the input as one short line.
std::string Short(absl::string_view text) {
  constexpr size_t kMost = 160;
  return absl::StrCat(absl::Utf8SafeCHexEscape(text.substr(0, kMost)),
                      text.size() > kMost ? "…" : "");
}

bool Blank(absl::string_view text) { return absl::StripAsciiWhitespace(text).empty(); }

// Moves a text member out of `object`, which stands at `at` in the record. `optional`: a missing or
// null one is empty.
absl::Status TakeText(const Place& place, absl::string_view at, json& object, const char* member,
                      bool optional, std::string& out) {
  const auto it = object.find(member);
  const bool missing = it == object.end();
  if (optional && (missing || it->is_null())) return absl::OkStatus();
  if (missing || !it->is_string()) {
    return place.Fault(absl::StrCat(at, member), "a text",
                       missing ? "no such member" : it->type_name());
  }
  out = std::move(it->get_ref<std::string&>());
  return absl::OkStatus();
}

// ShareGPT's names of roles as everyone else's; empty where unknown.
absl::string_view RoleOf(absl::string_view name) {
  if (name == "human" || name == "user") return "user";
  if (name == "gpt" || name == "assistant") return "assistant";
  return name == "system" ? name : "";
}

absl::Status ParseMessages(const Place& place, absl::string_view member, json& list,
                           std::vector<ChatMessage>& out) {
  if (!list.is_array()) return place.Fault(member, "a list of messages", list.type_name());
  if (list.empty()) return place.Fault(member, "at least one message", "none");
  for (size_t i = 0; i < list.size(); ++i) {
    json& entry = list[i];
    const std::string at = absl::StrCat(member, "[", i, "]");
    if (!entry.is_object()) return place.Fault(at, "a message", entry.type_name());
    const bool share_gpt = entry.contains("from");
    const char* role_member = share_gpt ? "from" : "role";
    const char* text_member = share_gpt ? "value" : "content";
    ChatMessage message;
    std::string role;
    const std::string prefix = at + " ";
    LL_RETURN_IF_ERROR(TakeText(place, prefix, entry, role_member, false, role));
    LL_RETURN_IF_ERROR(TakeText(place, prefix, entry, text_member, false, message.content));
    message.role = std::string(RoleOf(role));
    if (message.role.empty()) {
      return place.Fault(absl::StrCat(at, " ", role_member),
                         "system, user (human) or assistant (gpt)", Short(role));
    }
    out.push_back(std::move(message));
  }
  return absl::OkStatus();
}

absl::Status ParseObject(const Place& place, json& object, Record& record) {
  const auto has = [&](const char* member) { return object.contains(member); };
  for (const char* member : {"messages", "conversations"}) {
    if (!has(member)) continue;
    record.kind = Record::Kind::kMessages;
    return ParseMessages(place, member, object[member], record.messages);
  }
  if (has("instruction") || (has("input") && has("output"))) {
    record.kind = has("instruction") ? Record::Kind::kInstruction : Record::Kind::kPair;
    const bool pair = record.kind == Record::Kind::kPair;
    LL_RETURN_IF_ERROR(TakeText(place, "", object, "instruction", pair, record.instruction));
    LL_RETURN_IF_ERROR(TakeText(place, "", object, "input", !pair, record.input));
    return TakeText(place, "", object, "output", false, record.output);
  }
  if (!has("text")) {
    return place.Fault("",
                       "\"text\", \"instruction\" and \"output\", \"input\" and \"output\", "
                       "\"messages\" or \"conversations\"",
                       "none of them");
  }
  LL_RETURN_IF_ERROR(TakeText(place, "", object, "text", false, record.text));
  if (Blank(record.text)) return place.Fault("text", "some text", "none");
  return absl::OkStatus();
}

}  // namespace

absl::string_view KindName(Record::Kind kind) {
  switch (kind) {
    case Record::Kind::kText:
      return "text";
    case Record::Kind::kInstruction:
      return "instruction/output";
    case Record::Kind::kPair:
      return "input/output";
    case Record::Kind::kMessages:
      return "messages";
  }
  return "";
}

std::string RecordPlace(const std::string& file, int64_t line) {
  return absl::StrCat(file, ":", line);
}

absl::StatusOr<Record> ParseRecord(RawRecord&& raw, const std::string& file, InvalidUtf8 policy,
                                   bool& replaced) {
  const Place place(file, raw.line);
  if (!IsValidUtf8(raw.bytes)) {
    if (policy == InvalidUtf8::kRefuse) {
      return place.Fault("", "UTF-8",
                         "bytes that are not (--invalid-utf8 replace reads them as U+FFFD)");
    }
    raw.bytes = ReplaceInvalidUtf8(raw.bytes);
    replaced = true;
  }
  Record record;
  record.file = file;
  record.line = raw.line;
  if (!raw.json) {
    if (raw.first && raw.last && Blank(raw.bytes)) return place.Fault("", "some text", "none");
    record.text = std::move(raw.bytes);
    return record;
  }
  absl::string_view text = raw.bytes;
  absl::ConsumeSuffix(&text, "\n");
  absl::ConsumeSuffix(&text, "\r");
  auto object = ParseJsonObject(text);
  if (!object.ok()) return place.At(object.status());
  LL_RETURN_IF_ERROR(ParseObject(place, *object, record));
  return record;
}

}  // namespace ll
