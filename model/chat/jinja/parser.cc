#include "model/chat/jinja/parser.h"

#include <initializer_list>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat/jinja/expression_parser.h"
#include "model/chat/jinja/text.h"

namespace ll::jinja {
namespace {

using Kind = Token::Kind;

class StatementParser {
 public:
  explicit StatementParser(TokenStream& in) : in_(in), expressions_(in) {}

  // Statements up to a tag named in `ends`, whose name is taken and given back in `end`; with no
  // `ends`, up to the end of the template.
  absl::StatusOr<std::vector<Stmt>> Body(std::initializer_list<absl::string_view> ends,
                                         std::string* end) {
    DepthGuard guard(in_);
    LL_RETURN_IF_ERROR(guard.status());
    std::vector<Stmt> out;
    while (true) {
      const Token& token = in_.Next();
      if (token.kind == Kind::kEnd) {
        if (ends.size() == 0) return out;
        return in_.Error(absl::StrCat("the template ends before {% ", *(ends.end() - 1), " %}"));
      }
      if (token.kind == Kind::kText) {
        out.push_back({Stmt::Kind::kText, token.line, token.text});
      } else if (token.kind == Kind::kOutputBegin) {
        Stmt stmt{Stmt::Kind::kOutput, token.line};
        LL_ASSIGN_OR_RETURN(stmt.value, expressions_.Expression());
        LL_RETURN_IF_ERROR(in_.Expect(Kind::kOutputEnd, "}}"));
        out.push_back(std::move(stmt));
      } else {
        LL_ASSIGN_OR_RETURN(const std::string name, in_.ExpectName());
        for (const absl::string_view wanted : ends) {
          if (name != wanted) continue;
          *end = name;
          return out;
        }
        LL_ASSIGN_OR_RETURN(Stmt stmt, Tag(name));
        out.push_back(std::move(stmt));
      }
    }
  }

 private:
  absl::Status EndTag() { return in_.Expect(Kind::kBlockEnd, "%}"); }

  absl::StatusOr<Stmt> Tag(const std::string& name) {
    Stmt stmt{Stmt::Kind::kIf, in_.line()};
    if (name == "if") return If(std::move(stmt));
    if (name == "for") return For(std::move(stmt));
    if (name == "set") return Set(std::move(stmt));
    if (name == "generation") {
      stmt.kind = Stmt::Kind::kGeneration;
      LL_RETURN_IF_ERROR(EndTag());
      std::string end;
      LL_ASSIGN_OR_RETURN(stmt.body, Body({"endgeneration"}, &end));
      LL_RETURN_IF_ERROR(EndTag());
      return stmt;
    }
    if ((name == "break" || name == "continue") && loops_ > 0) {
      stmt.kind = name == "break" ? Stmt::Kind::kBreak : Stmt::Kind::kContinue;
      LL_RETURN_IF_ERROR(EndTag());
      return stmt;
    }
    return in_.Error(absl::StrCat("unknown tag \"", name, "\""));
  }

  absl::StatusOr<Stmt> If(Stmt stmt) {
    LL_ASSIGN_OR_RETURN(stmt.value, expressions_.Expression());
    LL_RETURN_IF_ERROR(EndTag());
    std::string end;
    LL_ASSIGN_OR_RETURN(stmt.body, Body({"elif", "else", "endif"}, &end));
    if (end == "elif") {
      DepthGuard guard(in_);
      LL_RETURN_IF_ERROR(guard.status());
      LL_ASSIGN_OR_RETURN(Stmt next, If({Stmt::Kind::kIf, in_.line()}));
      stmt.orelse.push_back(std::move(next));
      return stmt;
    }
    LL_RETURN_IF_ERROR(EndTag());
    if (end == "endif") return stmt;
    LL_ASSIGN_OR_RETURN(stmt.orelse, Body({"endif"}, &end));
    LL_RETURN_IF_ERROR(EndTag());
    return stmt;
  }

  absl::StatusOr<Stmt> For(Stmt stmt) {
    stmt.kind = Stmt::Kind::kFor;
    LL_RETURN_IF_ERROR(Targets(stmt));
    if (!in_.TakeName("in")) return in_.Unexpected("in");
    // No conditional here: the `if` of a loop filters.
    LL_ASSIGN_OR_RETURN(stmt.value, expressions_.Or());
    if (in_.TakeName("if")) {
      LL_ASSIGN_OR_RETURN(stmt.condition, expressions_.Expression());
    }
    LL_RETURN_IF_ERROR(EndTag());
    std::string end;
    ++loops_;
    LL_ASSIGN_OR_RETURN(stmt.body, Body({"else", "endfor"}, &end));
    --loops_;
    LL_RETURN_IF_ERROR(EndTag());
    if (end == "endfor") return stmt;
    LL_ASSIGN_OR_RETURN(stmt.orelse, Body({"endfor"}, &end));
    LL_RETURN_IF_ERROR(EndTag());
    return stmt;
  }

  absl::Status Targets(Stmt& stmt) {
    const bool bracket = in_.TakeOperator("(");
    do {
      LL_ASSIGN_OR_RETURN(std::string name, in_.ExpectName());
      stmt.targets.push_back(std::move(name));
    } while (in_.TakeOperator(","));
    return bracket ? in_.ExpectOperator(")") : absl::OkStatus();
  }

  absl::StatusOr<Stmt> Set(Stmt stmt) {
    stmt.kind = Stmt::Kind::kSet;
    LL_RETURN_IF_ERROR(Targets(stmt));
    if (in_.TakeOperator(".")) {
      LL_ASSIGN_OR_RETURN(stmt.text, in_.ExpectName());
    }
    if (in_.TakeOperator("=")) {
      LL_ASSIGN_OR_RETURN(stmt.value, expressions_.ExpressionOrTuple());
      LL_RETURN_IF_ERROR(EndTag());
      return stmt;
    }
    if (stmt.targets.size() > 1 || !stmt.text.empty()) return in_.Unexpected("=");
    stmt.kind = Stmt::Kind::kSetBlock;
    LL_RETURN_IF_ERROR(EndTag());
    std::string end;
    LL_ASSIGN_OR_RETURN(stmt.body, Body({"endset"}, &end));
    LL_RETURN_IF_ERROR(EndTag());
    return stmt;
  }

  TokenStream& in_;
  ExpressionParser expressions_;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<std::vector<Stmt>> Parse(const std::vector<Token>& tokens) {
  TokenStream stream(tokens);
  return StatementParser(stream).Body({}, nullptr);
}

}  // namespace ll::jinja
