// llctl completion: scripts made from the command line's own description, so that they never fall
// behind it.
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "llctl/errors.h"
#include "llctl/session.h"

namespace ll {
namespace {

// Words that may follow each command: its sub-commands and long flags, by its path ("", "models",
// "models add").
void CollectWords(const CLI::App& app, const std::string& path,
                  std::map<std::string, std::vector<std::string>>& out) {
  std::vector<std::string>& words = out[path];
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.push_back(sub->get_name());
  }
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) words.push_back("--" + name);
  }
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    CollectWords(*sub, path.empty() ? sub->get_name() : absl::StrCat(path, " ", sub->get_name()),
                 out);
  }
}

// The same function serves bash and, through bashcompinit, zsh. Commands that take a job complete
// live job ids.
constexpr char kBashBody[] = R"sh(
_llctl() {
  local word=${COMP_WORDS[COMP_CWORD]} path= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in -*) continue ;; esac
    _llctl_words "${path:+$path }${COMP_WORDS[i]}" > /dev/null && path="${path:+$path }${COMP_WORDS[i]}"
  done
  local words
  words=$(_llctl_words "$path")
  case $path in
    get | watch | logs | cancel | pause | resume | why | doctor | checkpoints | verify)
      [[ $word == -* ]] || words+=" $(llctl list -o name --timeout 2 2> /dev/null)" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}
complete -o default -F _llctl llctl
)sh";

std::string BashScript(const std::map<std::string, std::vector<std::string>>& words) {
  std::string script = "_llctl_words() {\n  case $1 in\n";
  for (const auto& [path, list] : words) {
    absl::StrAppend(&script, "    '", path, "') echo '", absl::StrJoin(list, " "), "' ;;\n");
  }
  return absl::StrCat(script, "    *) return 1 ;;\n  esac\n}", kBashBody);
}

std::string FishScript(const std::map<std::string, std::vector<std::string>>& words) {
  std::string script;
  for (const auto& [path, list] : words) {
    const std::string condition =
        path.empty() ? "__fish_use_subcommand"
                     : absl::StrCat("string match -q -- 'llctl ", path, " *' (commandline -cp)");
    absl::StrAppend(&script, "complete -c llctl -n \"", condition, "\" -a '",
                    absl::StrJoin(list, " "), "'\n");
  }
  return script;
}

}  // namespace

void AddCompletionCommand(CLI::App& app, Action& chosen) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for a shell.");
  command->add_option("SHELL", *shell, "bash, zsh or fish.")->required();
  command->footer("\nbash: source <(llctl completion bash)");
  command->callback([&app, shell, &chosen] {
    chosen = [&app, shell](Session& session) -> absl::StatusOr<int> {
      std::map<std::string, std::vector<std::string>> words;
      CollectWords(app, "", words);
      std::ostream& out = session.output().stream();
      if (*shell == "bash") {
        out << BashScript(words);
      } else if (*shell == "zsh") {
        out << "autoload -U +X bashcompinit && bashcompinit\n" << BashScript(words);
      } else if (*shell == "fish") {
        out << FishScript(words);
      } else {
        return MakeFieldError({"shell", "one of bash, zsh, fish", *shell});
      }
      return kExitSuccess;
    };
  });
}

}  // namespace ll
