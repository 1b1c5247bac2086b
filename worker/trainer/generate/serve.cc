#include "worker/trainer/generate/serve.h"

#include "base/status_macros.h"
#include "worker/trainer/error_class.h"
#include "worker/trainer/generate/chat_model.h"

namespace ll {
namespace {

using nlohmann::ordered_json;

constexpr absl::Duration kLookForSignals = absl::Milliseconds(200);

// LongLoRA's own inference: temperature 0.6, top_p 0.9, 512 tokens.
AnswerOptions Defaults() {
  AnswerOptions options;
  options.generation.sampling.temperature = 0.6;
  options.generation.sampling.top_p = 0.9;
  options.generation.max_new_tokens = 512;
  return options;
}

TextGeneratorOptions OptionsOf(const JobSpec& spec, EventSink& events) {
  TextGeneratorOptions options;
  options.model.model = spec.model.value_or("");
  options.model.adapter = spec.adapter.value_or("");
  options.model.context_size = spec.context_length.value_or(0);
  options.model.rope = spec.rope.value_or("linear");
  options.model.original_context_length = spec.original_context_length.value_or(0);
  options.model.precision = spec.precision.value_or("auto");
  options.model.quantization = spec.quantization.value_or("");
  options.tokenizer = spec.tokenizer.value_or("");
  options.warn = [&events](absl::string_view warning) { events.Warning(warning); };
  return options;
}

// One message and its answer, as events.
void AnswerLine(const std::string& line, ChatModel& model, EventSink& events) {
  const auto request = ParseChatRequest(line, Defaults());
  const std::string id = request.ok() ? request->request_id : "";
  const auto emit = [&](const char* event, const ordered_json& fields) {
    ordered_json all = ordered_json::object();
    if (!id.empty()) all["request_id"] = id;
    all.update(fields);
    events.Emit(event, all);
  };
  const auto on_text = [&](absl::string_view text) {
    if (!text.empty()) emit("token", {{"text", std::string(text)}});
    return !StopRequested();
  };
  const auto answer = request.ok() ? model.AnswerRequest(*request, on_text)
                                   : absl::StatusOr<Answer>(request.status());
  emit("answer",
       answer.ok() ? ToJson(*answer) : ordered_json{{"error", ErrorToJson(answer.status())}});
}

}  // namespace

absl::StatusOr<int> ServeChat(const JobSpec& spec, ControlChannel& control, EventSink& events,
                              Clock& clock, absl::Duration idle) {
  events.Phase("load");
  LL_ASSIGN_OR_RETURN(const auto model,
                      ChatModel::Open(OptionsOf(spec, events), spec.prompt_template.value_or("")));
  LL_RETURN_IF_ERROR(model->generator().Prepare(1));
  events.Phase("generate");
  int64_t answers = 0;
  for (absl::Duration heard = clock.Steady(); clock.Steady() - heard < idle;) {
    if (StopRequested()) return kExitStopped;
    const std::optional<std::string> line = control.NextMessage(kLookForSignals);
    if (!line) continue;
    AnswerLine(*line, *model, events);
    ++answers;
    heard = clock.Steady();
  }
  events.Emit("done", {{"result", {{"answers", answers}, {"ended", "idle"}}}});
  return 0;
}

}  // namespace ll
