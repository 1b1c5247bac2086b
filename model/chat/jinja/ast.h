// The parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/chat/jinja/value.h"

namespace ll::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Expr {
  enum class Kind {
    kLiteral,      // literal
    kName,         // text
    kList,         // args
    kDict,         // args: key, value, key, value, …
    kAttribute,    // args[0].text
    kItem,         // args[0][args[1]]
    kSlice,        // args[0][args[1]:args[2]:args[3]], each of the three may be null
    kCall,         // args[0](args[1…], named…)
    kFilter,       // args[0] | text(args[1…], named…)
    kTest,         // args[0] is text(args[1…])
    kNot,          // not args[0]
    kUnary,        // text args[0], text one of - +
    kBinary,       // args[0] text args[1], arithmetic and ~
    kCompare,      // args[0] operators[0] args[1] operators[1] args[2] …
    kAnd,          // args[0] and args[1]
    kOr,           // args[0] or args[1]
    kConditional,  // args[0] if args[1] else args[2]; args[2] may be null
  };
  Kind kind;
  int line = 0;
  std::string text;
  Value literal;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> operators;
};

struct Stmt {
  enum class Kind {
    kText,        // text
    kOutput,      // {{ value }}
    kIf,          // if value: body, else: orelse (an elif is an if inside orelse)
    kFor,         // for targets in value if condition: body, else: orelse
    kSet,         // set targets = value; text is the attribute in `set ns.attribute = value`
    kSetBlock,    // set targets[0]: what body prints
    kGeneration,  // body is what the model is trained to say
    kBreak,
    kContinue,
  };
  Kind kind;
  int line = 0;
  std::string text;
  std::vector<std::string> targets;
  ExprPtr value, condition;
  std::vector<Stmt> body, orelse;
};

}  // namespace ll::jinja
