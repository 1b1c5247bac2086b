// The lines of `ll-trainer chat` when a program, not a person, talks to it:
//   in   {"messages":[{"role":"user","content":"…"}]} or {"prompt":"…"}, and any of request_id,
//        max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed, stop, ignore_eos
//   out  {"event":"token","text":"…"} …, then {"event":"answer", …} or {"event":"error", …}; each
//        with the request's request_id, where it has one
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/data/record.h"
#include "worker/trainer/generate/text_generator.h"

namespace ll {

struct ChatRequest {
  std::string request_id;
  std::string prompt;  // text to continue; empty where there are messages
  std::vector<ChatMessage> messages;
  AnswerOptions options;
};

// `defaults` hold what the line does not say. Errors name the member: bad JSON, neither or both of
// prompt and messages, another type than expected, a member that is not known.
absl::StatusOr<ChatRequest> ParseChatRequest(absl::string_view line, const AnswerOptions& defaults);

}  // namespace ll
