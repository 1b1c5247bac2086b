#include "llctl/completion_scripts.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "llctl/command_line.h"

namespace ll {
namespace {

// What lists the values of a positional argument or of a flag.
struct ListedValues {
  const char* name;  // "JOB", "--job"
  const char* command;
};
constexpr ListedValues kListed[] = {
    {"JOB", "list"},
    {"WORKER", "workers list"},
    {"SCHEDULE", "schedule list"},
    {"--job", "list"},
    {"--after", "list"},
    {"--after-any", "list"},
    {"--queue", "queues list"},
    {"--model", "models list"},
    {"--data", "data list"},
};

struct CompletedCommand {
  std::string path;                                        // "models add"
  std::vector<std::string> words;                          // sub-commands and long flags
  std::string lists;                                       // "workers list", or nothing
  std::map<std::string, std::vector<std::string>> values;  // by flag, of those that take one of few
};

// Of an option that --help shows as "a|b|c" or "TEXT:{a,b,c}", or as "a,b,c" where it takes
// several.
std::vector<std::string> ValuesOf(const CLI::Option& option) {
  const auto is_value = [](absl::string_view name) {
    return !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
      return absl::ascii_islower(c) || absl::ascii_isdigit(c) || c == '_' || c == '-';
    });
  };
  const std::string type = option.get_type_name();
  const size_t brace = type.find('{');
  absl::string_view names = type;
  if (brace != std::string::npos) names = names.substr(brace + 1, type.find('}') - brace - 1);
  std::vector<std::string> values = absl::StrSplit(names, absl::ByAnyChar("|,"));
  if (values.size() < 2 || !std::all_of(values.begin(), values.end(), is_value)) return {};
  return values;
}

void Collect(const CLI::App& command, std::vector<CompletedCommand>& out) {
  CompletedCommand one;
  one.path = CommandPath(command);
  for (const CLI::App* sub : SubCommands(command)) one.words.push_back(sub->get_name());
  for (const CLI::Option* option : command.get_options()) {
    const std::vector<std::string> values = ValuesOf(*option);
    for (const std::string& name : option->get_lnames()) {
      one.words.push_back("--" + name);
      if (!values.empty()) one.values["--" + name] = values;
    }
    for (const std::string& name : option->get_snames()) {
      if (!values.empty()) one.values["-" + name] = values;
    }
    for (const ListedValues& listed : kListed) {
      if (option->get_positional() && option->get_name(/*positional=*/true) == listed.name)
        one.lists = listed.command;
    }
  }
  out.push_back(one);
  for (const CLI::App* sub : SubCommands(command)) Collect(*sub, out);
}

// A pattern of the shells for "COMMAND FLAG"; llctl's own flags go with every command.
std::string FlagPattern(const std::string& path, const std::string& flag) {
  return path.empty() ? absl::StrCat("*' ", flag, "'") : absl::StrCat("'", path, " ", flag, "'");
}

// "case $1 in 'workers drain') echo 'workers list' ;; …": POSIX, for bash and zsh.
std::string WordFunctions(const std::vector<CompletedCommand>& commands) {
  std::string script = "_llctl_words() {\n  case $1 in\n";
  for (const CompletedCommand& command : commands) {
    absl::StrAppend(&script, "    '", command.path, "') echo '", absl::StrJoin(command.words, " "),
                    "' ;;\n");
  }
  absl::StrAppend(&script, "    *) return 1 ;;\n  esac\n}\n_llctl_lists() {\n  case $1 in\n");
  for (const CompletedCommand& command : commands) {
    if (!command.lists.empty())
      absl::StrAppend(&script, "    '", command.path, "') echo '", command.lists, "' ;;\n");
  }
  absl::StrAppend(&script, "  esac\n}\n_llctl_flag_lists() {\n  case $1 in\n");
  for (const ListedValues& listed : kListed) {
    if (absl::StartsWith(listed.name, "--"))
      absl::StrAppend(&script, "    ", listed.name, ") echo '", listed.command, "' ;;\n");
  }
  absl::StrAppend(&script, "  esac\n}\n_llctl_flag_values() {\n  case $1 in\n");
  for (const CompletedCommand& command : commands) {
    for (const auto& [flag, values] : command.values)
      absl::StrAppend(&script, "    ", FlagPattern(command.path, flag), ") echo '",
                      absl::StrJoin(values, " "), "' ;;\n");
  }
  return absl::StrCat(script, "  esac\n}\n");
}

constexpr char kBashBody[] = R"sh(_llctl() {
  local word=${COMP_WORDS[COMP_CWORD]} path= listed words i
  listed=$(_llctl_flag_lists "${COMP_WORDS[COMP_CWORD - 1]}")
  if [[ -n $listed ]]; then
    COMPREPLY=($(compgen -W "$(llctl $listed -o name --timeout 2 2> /dev/null)" -- "$word"))
    return
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in -*) continue ;; esac
    _llctl_words "${path:+$path }${COMP_WORDS[i]}" > /dev/null && path="${path:+$path }${COMP_WORDS[i]}"
  done
  words=$(_llctl_flag_values "$path ${COMP_WORDS[COMP_CWORD - 1]}")
  if [[ -n $words ]]; then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    return
  fi
  words=$(_llctl_words "$path")
  listed=$(_llctl_lists "$path")
  if [[ -n $listed && $word != -* ]]; then
    words+=" $(llctl $listed -o name --timeout 2 2> /dev/null)"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _llctl llctl
)sh";

constexpr char kZshBody[] = R"sh(_llctl() {
  local where= listed i
  listed=$(_llctl_flag_lists "${words[CURRENT-1]}")
  if [[ -n $listed ]]; then
    compadd -- ${(f)"$(llctl ${=listed} -o name --timeout 2 2> /dev/null)"}
    return
  fi
  for ((i = 2; i < CURRENT; i++)); do
    [[ ${words[i]} == -* ]] && continue
    _llctl_words "${where:+$where }${words[i]}" > /dev/null && where="${where:+$where }${words[i]}"
  done
  listed=$(_llctl_flag_values "$where ${words[CURRENT-1]}")
  if [[ -n $listed ]]; then
    compadd -- ${=listed}
    return
  fi
  compadd -- ${=$(_llctl_words "$where")}
  listed=$(_llctl_lists "$where")
  if [[ -n $listed && ${words[CURRENT]} != -* ]]; then
    compadd -- ${(f)"$(llctl ${=listed} -o name --timeout 2 2> /dev/null)"}
  fi
  _files
}
# As a file of $fpath this is the function's own body at its first call; sourced it only defines.
if [[ ${zsh_eval_context[-1]} == loadautofunc ]]; then
  _llctl "$@"
else
  compdef _llctl llctl
fi
)sh";

constexpr char kFishBody[] = R"sh(function __llctl_complete
    set -l tokens (commandline -opc)
    set -l listed (__llctl_flag_lists $tokens[-1])
    if test -n "$listed"
        llctl (string split ' ' -- $listed) -o name --timeout 2 2>/dev/null
        return
    end
    set -l path
    for token in $tokens[2..-1]
        string match -q -- '-*' $token; and continue
        __llctl_words (string join ' ' -- $path $token) >/dev/null; and set -a path $token
    end
    set -l command (string join ' ' -- $path)
    set -l values (__llctl_flag_values "$command $tokens[-1]")
    if test -n "$values"
        printf '%s\n' $values
        return
    end
    __llctl_words "$command"
    set listed (__llctl_lists "$command")
    if test -n "$listed"; and not string match -q -- '-*' (commandline -ct)
        llctl (string split ' ' -- $listed) -o name --timeout 2 2>/dev/null
    end
end
complete -c llctl -a '(__llctl_complete)'
)sh";

std::string FishScript(const std::vector<CompletedCommand>& commands) {
  std::string script = "function __llctl_words\n    switch $argv[1]\n";
  for (const CompletedCommand& command : commands) {
    absl::StrAppend(&script, "        case '", command.path, "'\n            printf '%s\\n' ",
                    absl::StrJoin(command.words, " "), "\n");
  }
  absl::StrAppend(&script,
                  "        case '*'\n            return 1\n    end\nend\n"
                  "function __llctl_lists\n    switch $argv[1]\n");
  for (const CompletedCommand& command : commands) {
    if (!command.lists.empty())
      absl::StrAppend(&script, "        case '", command.path, "'\n            echo '",
                      command.lists, "'\n");
  }
  absl::StrAppend(&script, "    end\nend\nfunction __llctl_flag_lists\n    switch $argv[1]\n");
  for (const ListedValues& listed : kListed) {
    if (absl::StartsWith(listed.name, "--"))
      absl::StrAppend(&script, "        case ", listed.name, "\n            echo '", listed.command,
                      "'\n");
  }
  absl::StrAppend(&script, "    end\nend\nfunction __llctl_flag_values\n    switch $argv[1]\n");
  for (const CompletedCommand& command : commands) {
    for (const auto& [flag, values] : command.values) {
      // fish wants a pattern's star within quotes.
      const std::string pattern =
          absl::StrCat(command.path.empty() ? "*" : command.path, " ", flag);
      absl::StrAppend(&script, "        case '", pattern, "'\n            printf '%s\\n' ",
                      absl::StrJoin(values, " "), "\n");
    }
  }
  return absl::StrCat(script, "    end\nend\n", kFishBody);
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(const CLI::App& app, const std::string& shell) {
  std::vector<CompletedCommand> commands;
  Collect(app, commands);
  if (shell == "bash") return WordFunctions(commands) + kBashBody;
  if (shell == "zsh") return absl::StrCat("#compdef llctl\n", WordFunctions(commands), kZshBody);
  if (shell == "fish") return FishScript(commands);
  return MakeFieldError({"shell", "one of bash, zsh, fish", OneLine(shell)});
}

}  // namespace ll
