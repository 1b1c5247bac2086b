// A model folder's chat template: parsed, and rendered for a short conversation.
#include "base/check.h"
#include "model/chat/jinja/template.h"
#include "tests/fuzz/fuzz.h"

namespace ll {

void FuzzOne(absl::string_view input) {
  const auto parsed = jinja::Template::Parse(input);
  if (!parsed.ok()) return CheckRefusal(parsed.status());
  const auto message = [](const char* role, const char* content) {
    jinja::Dict fields;
    fields.Set("role", jinja::Value::String(role));
    fields.Set("content", jinja::Value::String(content));
    return jinja::Value::Of(std::move(fields));
  };
  jinja::Dict globals;
  globals.Set("messages", jinja::Value::Of(jinja::List{message("system", "Be brief."),
                                                       message("user", "Was ist \xc3\xa9?"),
                                                       message("assistant", "A letter.")}));
  globals.Set("bos_token", jinja::Value::String("<s>"));
  globals.Set("eos_token", jinja::Value::String("</s>"));
  globals.Set("add_generation_prompt", jinja::Value::Bool(false));
  jinja::Limits limits;
  limits.output_bytes = 1 << 16;
  limits.steps = 20'000;
  const auto rendered = (*parsed)->Render(globals, limits);
  if (!rendered.ok()) return CheckRefusal(rendered.status());
  size_t last = 0;
  for (const auto& [start, end] : rendered->generated) {
    LL_CHECK(last <= start && start < end && end <= rendered->text.size());
    last = end;
  }
}

}  // namespace ll
