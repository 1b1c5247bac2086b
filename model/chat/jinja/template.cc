#include "model/chat/jinja/template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
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
  LL_ASSIGN_OR_RETURN(const std::vector<Token> tokens, Tokenize(source));
  std::unique_ptr<Template> out(new Template);
  LL_ASSIGN_OR_RETURN(out->body_, jinja::Parse(tokens));
  out->marks_generation_ = MarksGeneration(out->body_);
  return out;
}

absl::StatusOr<Rendered> Template::Render(const Dict& globals, const Limits& limits) const {
  return Interpreter(globals, limits).Run(body_);
}

}  // namespace ll::jinja
