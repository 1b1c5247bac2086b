#include "llctl/examples.h"

#include <CLI/CLI.hpp>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace ll {
namespace {

struct CommandExamples {
  const char* path;
  std::vector<std::string> lines;
};

#define JOB "job-0123456789ab"

const std::vector<CommandExamples>& AllExamples() {
  static const auto& all = *new std::vector<CommandExamples>{
      {"",
       {"llctl submit --model 7b --ctx 32768 --data books --steps 1000 --watch", "llctl top",
        "llctl describe " JOB}},
      {"submit",
       {"llctl submit --model 7b --ctx 32768 --data books --steps 1000 --watch",
        "llctl submit --model 7b --ctx 32768 --stages 8192,16384,32768 --gate "
        "\"passkey>=0.9,ppl<=9\"",
        "llctl submit -f job.yaml --set learning_rate=1e-5"}},
      {"plan",
       {"llctl plan --model 7b --ctx 32768",
        "llctl plan --model 70b --ctx 32768 --device H100 --gpus 8   # without a coordinator"}},
      {"list", {"llctl list --state RUNNING", "llctl list --label team=nlp -o json"}},
      {"get", {"llctl get " JOB, "llctl get " JOB " --history -o json"}},
      {"describe", {"llctl describe " JOB, "llctl describe " JOB " -o json"}},
      {"watch", {"llctl watch " JOB, "llctl watch " JOB " --from-step 100 -o json"}},
      {"logs", {"llctl logs -f " JOB, "llctl logs " JOB " --rank 1 --tail 10000"}},
      {"cancel", {"llctl cancel " JOB " --reason \"wrong data\""}},
      {"pause", {"llctl pause " JOB}},
      {"resume", {"llctl resume " JOB}},
      {"why", {"llctl why " JOB}},
      {"doctor", {"llctl doctor " JOB}},
      {"checkpoints", {"llctl checkpoints " JOB}},
      {"plot",
       {"llctl plot " JOB " -o loss.png", "llctl plot " JOB " job-ba9876543210 -o both.svg",
        "llctl plot " JOB " -o -   # CSV"}},
      {"export", {"llctl export " JOB " --tensorboard runs"}},
      {"top", {"llctl top", "llctl top --once"}},
      {"verify", {"llctl verify " JOB}},
      {"eval", {"llctl eval perplexity --job " JOB " --seq-len 32768"}},
      {"eval perplexity", {"llctl eval perplexity --job " JOB " --seq-len 32768 --compare-base"}},
      {"eval passkey",
       {"llctl eval passkey --job " JOB " --lengths 8192,16384,32768 --depths 5 --plot "
        "passkey.svg"}},
      {"eval topics", {"llctl eval topics --job " JOB " --lengths 3000,6000"}},
      {"chat", {"llctl chat " JOB, "llctl chat --model 7b --system \"Answer in one sentence.\""}},
      {"merge", {"llctl merge " JOB " --out book-32k --watch"}},
      {"workers", {"llctl workers list"}},
      {"workers list", {"llctl workers list", "llctl workers list -o json"}},
      {"workers cordon", {"llctl workers cordon gpu-7 --reason \"driver update\""}},
      {"workers uncordon", {"llctl workers uncordon gpu-7"}},
      {"workers drain", {"llctl workers drain gpu-7 --reason \"driver update\""}},
      {"queues", {"llctl queues list"}},
      {"queues list", {"llctl queues list"}},
      {"queues set", {"llctl queues set research --weight 2 --quota-gpus 8"}},
      {"schedule", {"llctl schedule list"}},
      {"schedule create",
       {"llctl schedule create nightly --cron \"0 2 * * *\" --tz Europe/Berlin -f nightly.yaml"}},
      {"schedule list", {"llctl schedule list"}},
      {"schedule show", {"llctl schedule show nightly"}},
      {"schedule run", {"llctl schedule run nightly"}},
      {"schedule pause", {"llctl schedule pause nightly"}},
      {"schedule resume", {"llctl schedule resume nightly"}},
      {"schedule delete", {"llctl schedule delete nightly"}},
      {"models", {"llctl models list"}},
      {"models list", {"llctl models list"}},
      {"models add", {"llctl models add smollm2 /models/SmolLM2-135M"}},
      {"data", {"llctl data list"}},
      {"data list", {"llctl data list"}},
      {"data add", {"llctl data add books /data/books.tokens --default"}},
      {"data pack", {"llctl data pack books/ --tokenizer /models/SmolLM2-135M --out books.tokens"}},
      {"data doctor",
       {"llctl data doctor chats.jsonl --tokenizer /models/SmolLM2-135M --ctx 8192"}},
      {"token", {"llctl token list --tokens /etc/ll/tokens.json"}},
      {"token create",
       {"llctl token create --tokens /etc/ll/tokens.json --user ann --scopes read,submit "
        "--expires 90d"}},
      {"token list", {"llctl token list --tokens /etc/ll/tokens.json"}},
      {"token revoke", {"llctl token revoke 3f9a12 --tokens /etc/ll/tokens.json"}},
      {"login", {"llctl login lab --coordinator ll.example.org:7070 --ca ca.pem < token"}},
      {"config", {"llctl config get-contexts"}},
      {"config get-contexts", {"llctl config get-contexts"}},
      {"config use-context", {"llctl config use-context lab"}},
      {"config set-context",
       {"llctl config set-context lab --coordinator ll.example.org:7070 --ca ca.pem"}},
      {"version", {"llctl version", "llctl version --client"}},
      {"completion",
       {"source <(llctl completion bash)", "llctl completion zsh > ~/.zfunc/_llctl",
        "llctl completion fish > ~/.config/fish/completions/llctl.fish"}},
      {"man", {"llctl man --dir ~/.local/share/man/man1"}},
  };
  return all;
}

#undef JOB

void AddExamplesBelow(CLI::App& app, const std::string& path) {
  const std::vector<std::string> lines = ExamplesOf(path);
  if (!lines.empty()) {
    const std::string footer = app.get_footer();
    app.footer(absl::StrCat("\nExamples:\n  ", absl::StrJoin(lines, "\n  "),
                            footer.empty() ? "" : "\n", footer));
  }
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; }))
    AddExamplesBelow(*sub,
                     path.empty() ? sub->get_name() : absl::StrCat(path, " ", sub->get_name()));
}

}  // namespace

std::vector<std::string> ExamplesOf(const std::string& path) {
  for (const CommandExamples& examples : AllExamples()) {
    if (examples.path == path) return examples.lines;
  }
  return {};
}

void AddExamples(CLI::App& app) { AddExamplesBelow(app, ""); }

}  // namespace ll
