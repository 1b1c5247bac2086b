#include "worker/trainer/generate/chat_request.h"

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/json.h"
#include "base/status_macros.h"

namespace ll {
namespace {

using nlohmann::json;

absl::Status Wrong(absl::string_view field, absl::string_view expected, const json& found) {
  return MakeFieldError({field, expected, JsonExcerpt(found)});
}

absl::Status Take(absl::string_view field, const json& value, std::string& out) {
  if (!value.is_string()) return Wrong(field, "a text", value);
  out = value.get<std::string>();
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, double& out) {
  if (!value.is_number()) return Wrong(field, "a number", value);
  out = value.get<double>();
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, int64_t& out) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX}))
    return Wrong(field, "a whole number", value);
  out = value.get<int64_t>();
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, uint64_t& out) {
  if (!value.is_number_unsigned()) return Wrong(field, "a whole number of 0 or more", value);
  out = value.get<uint64_t>();
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, bool& out) {
  if (!value.is_boolean()) return Wrong(field, "true or false", value);
  out = value.get<bool>();
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, std::vector<std::string>& out) {
  out.clear();
  for (const json& item : value.is_array() ? value : json::array({value})) {
    LL_RETURN_IF_ERROR(Take(field, item, out.emplace_back()));
  }
  return absl::OkStatus();
}

absl::Status Take(absl::string_view field, const json& value, std::vector<ChatMessage>& out) {
  if (!value.is_array() || value.empty()) return Wrong(field, "a list of messages", value);
  for (const json& item : value) {
    if (!item.is_object() || item.size() != 2 || !item.contains("role") ||
        !item.contains("content")) {
      return Wrong(field, "messages of a role and a content", item);
    }
    ChatMessage message;
    LL_RETURN_IF_ERROR(Take("messages.role", item["role"], message.role));
    LL_RETURN_IF_ERROR(Take("messages.content", item["content"], message.content));
    out.push_back(std::move(message));
  }
  return absl::OkStatus();
}

absl::Status TakeMember(const std::string& key, const json& value, ChatRequest& request) {
  SamplingOptions& sampling = request.options.generation.sampling;
  if (key == "request_id") return Take(key, value, request.request_id);
  if (key == "prompt") return Take(key, value, request.prompt);
  if (key == "messages") return Take(key, value, request.messages);
  if (key == "max_new_tokens") return Take(key, value, request.options.generation.max_new_tokens);
  if (key == "temperature") return Take(key, value, sampling.temperature);
  if (key == "top_k") return Take(key, value, sampling.top_k);
  if (key == "top_p") return Take(key, value, sampling.top_p);
  if (key == "repetition_penalty") return Take(key, value, sampling.repetition_penalty);
  if (key == "seed") return Take(key, value, sampling.seed);
  if (key == "stop") return Take(key, value, request.options.stop_strings);
  if (key == "ignore_eos") return Take(key, value, request.options.ignore_eos);
  return MakeFieldError({"request",
                         "request_id, prompt, messages, max_new_tokens, temperature, top_k, top_p, "
                         "repetition_penalty, seed, stop or ignore_eos",
                         JsonExcerpt(json(key))});
}

}  // namespace

absl::StatusOr<ChatRequest> ParseChatRequest(absl::string_view line,
                                             const AnswerOptions& defaults) {
  const auto root = ParseJsonObject(line);
  if (!root.ok()) return Annotate(root.status(), "request");
  ChatRequest request;
  request.options = defaults;
  for (const auto& [key, value] : root->items()) {
    LL_RETURN_IF_ERROR(TakeMember(key, value, request));
  }
  if (root->contains("prompt") == root->contains("messages"))
    return MakeFieldError(
        {"request", "either a prompt or messages", root->contains("prompt") ? "both" : "neither"});
  return request;
}

}  // namespace ll
