#include "model/chat/jinja/template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "model/chat/jinja/interpreter.h"
#include "model/chat/jinja/lexer.h"
#include "model/chat/jinja/parser.h"

namespace ll::jinja {
namespace {

constexpr size_t kMaxSourceBytes = 1 << 20;  // the longest in use have some 20 kB

bool MarksGeneration(const std::vector<Stmt>& body) {
  return std::any_of(body.begin(), body.end(), [](const Stmt& stmt) {
    return stmt.kind == Stmt::Kind::kGeneration || MarksGeneration(stmt.body) ||
           MarksGeneration(stmt.orelse);
  });
}

}  // namespace

Template::Template() = default;
Template::~Template() = default;

absl::StatusOr<std::unique_ptr<Template>> Template::Parse(absl::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    return absl::InvalidArgumentError(absl::StrCat("line 1: expected at most ", kMaxSourceBytes,
                                                   " bytes, found ", source.size()));
  }
  const absl::StatusOr<std::vector<Token>> tokens = Tokenize(source);
  if (!tokens.ok()) return OneLine(tokens.status());
  absl::StatusOr<std::vector<Stmt>> body = jinja::Parse(*tokens);
  if (!body.ok()) return OneLine(body.status());
  std::unique_ptr<Template> out(new Template);
  out->body_ = *std::move(body);
  out->marks_generation_ = MarksGeneration(out->body_);
  return out;
}

absl::StatusOr<Rendered> Template::Render(const Dict& globals, const Limits& limits) const {
  absl::StatusOr<Rendered> rendered = Interpreter(globals, limits).Run(body_);
  if (!rendered.ok()) return OneLine(rendered.status());
  return rendered;
}

}  // namespace ll::jinja
