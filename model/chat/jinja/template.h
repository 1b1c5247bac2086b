// A chat template: a well-bounded subset of Jinja, enough for the chat templates of Llama-2/3,
// Mistral, Qwen, ChatML, SmolLM and Zephyr, with the settings and globals Hugging Face's
// apply_chat_template gives them.
//
// Not there: macro, call, filter blocks, include, import, extends, `**`, the `%` format of strings,
// strftime_now (a template that asks for today's date trains differently every day: templates that
// test for it take their fixed date). Whatever is not there is an error that names it and the line.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat/jinja/value.h"

namespace ll::jinja {

struct Stmt;

// What one rendering may take; beyond it is an error, not a slow machine.
struct Limits {
  int64_t output_bytes = int64_t{1} << 28;
  int64_t steps = 5'000'000;  // values and statements, and one per 64 bytes of text made
};

struct Rendered {
  std::string text;
  // [start, end) in bytes of `text` that came from {% generation %} blocks; rising.
  std::vector<std::pair<size_t, size_t>> generated;
};

// Immutable, thread-safe.
class Template {
 public:
  // Errors are InvalidArgument and begin with "line N: ".
  static absl::StatusOr<std::unique_ptr<Template>> Parse(absl::string_view source);
  ~Template();

  // Errors as Parse's; a template's raise_exception("…") gives "line N: the template refuses: …".
  absl::StatusOr<Rendered> Render(const Dict& globals, const Limits& limits = {}) const;

  // Whether there is a {% generation %} block.
  bool marks_generation() const { return marks_generation_; }

 private:
  Template();
  std::vector<Stmt> body_;
  bool marks_generation_ = false;
};

}  // namespace ll::jinja
