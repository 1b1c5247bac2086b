// What is made from the command line's own description: help, examples, completion, manual pages.
#include <CLI/CLI.hpp>

#include "absl/strings/match.h"
#include "llctl/cli_case.h"
#include "llctl/command_line.h"
#include "llctl/completion_scripts.h"
#include "llctl/examples.h"
#include "llctl/man_page.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

void ForEachCommand(const CLI::App& command, const std::function<void(const CLI::App&)>& f) {
  f(command);
  for (const CLI::App* sub : SubCommands(command)) ForEachCommand(*sub, f);
}

// Words of a line of shell as this project's examples use it.
std::vector<std::string> WordsOf(const std::string& line) {
  std::vector<std::string> words;
  std::string word;
  bool quoted = false, any = false;
  for (const char c : line + " ") {
    if (c == '"') {
      quoted = !quoted;
      any = true;
    } else if (c == ' ' && !quoted) {
      if (any || !word.empty()) words.push_back(word);
      word.clear();
      any = false;
    } else {
      word.push_back(c);
    }
  }
  return words;
}

TEST(ExamplesTest, EveryCommandHasOneAndItsHelpShowsIt) {
  const CommandLine line;
  int commands = 0;
  ForEachCommand(line.app, [&](const CLI::App& command) {
    ++commands;
    const std::string path = CommandPath(command);
    const std::vector<std::string> examples = ExamplesOf(path);
    EXPECT_FALSE(examples.empty()) << "no example of llctl " << path;
    const std::string help = command.help();
    for (const std::string& example : examples) {
      EXPECT_THAT(help, HasSubstr("\n  " + example + "\n"));
      EXPECT_THAT(example, HasSubstr(path.empty() ? "llctl" : "llctl " + path)) << example;
    }
  });
  EXPECT_GT(commands, 50);
}

TEST(ExamplesTest, EveryExampleCanBeParsed) {
  const CommandLine commands;
  ForEachCommand(commands.app, [&](const CLI::App& command) {
    for (const std::string& example : ExamplesOf(CommandPath(command))) {
      if (!absl::StartsWith(example, "llctl ")) continue;  // source <(…)
      std::vector<std::string> words = WordsOf(example);
      words.erase(words.begin());
      const auto end = std::find_if(words.begin(), words.end(), [](const std::string& word) {
        return word == "#" || word == ">" || word == "<";
      });
      words.erase(end, words.end());
      std::reverse(words.begin(), words.end());
      CommandLine line;
      // What the line does is not run.
      EXPECT_NO_THROW(line.app.parse(words)) << example;
      EXPECT_TRUE(line.chosen != nullptr) << example;
    }
  });
}

TEST_F(CliTest, CompletionScriptsKnowEveryCommand) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const Outcome run = Run({"completion", shell});
    EXPECT_EQ(run.code, 0);
    EXPECT_THAT(run.out, HasSubstr("perplexity"));
    EXPECT_THAT(run.out, HasSubstr("--context-length"));
    EXPECT_THAT(run.out, HasSubstr("'describe'"));
    EXPECT_THAT(run.out, HasSubstr("'workers drain'"));
  }
  const Outcome other = Run({"completion", "tcsh"});
  EXPECT_EQ(other.code, kExitUsage);
  EXPECT_EQ(other.err, "llctl: error: shell: expected one of bash, zsh, fish, found tcsh\n");
}

TEST_F(CliTest, ManualPagesAreWrittenForEveryCommand) {
  const Outcome run = Run({"man", "--dir", folder_.path() + "/man1"});
  EXPECT_EQ(run.code, 0) << run.err;
  const CommandLine line;
  ForEachCommand(line.app, [&](const CLI::App& command) {
    const std::string path = folder_.path() + "/man1/" + ManPageName(command) + ".1";
    LL_ASSERT_OK_AND_ASSIGN(const std::string page, ReadFile(path));
    EXPECT_THAT(page, StartsWith(".TH LLCTL"));
    for (const char* section : {".SH NAME\n", ".SH SYNOPSIS\n", ".SH OPTIONS\n", ".SH EXAMPLES\n"})
      EXPECT_THAT(page, HasSubstr(section)) << path;
    EXPECT_THAT(page, Not(HasSubstr("\n'"))) << path;
  });
  LL_ASSERT_OK_AND_ASSIGN(const std::string watch,
                          ReadFile(folder_.path() + "/man1/llctl-watch.1"));
  EXPECT_THAT(watch, HasSubstr("\\fB\\-\\-from\\-step\\fR N\n"));
  EXPECT_THAT(watch, HasSubstr("Ctrl\\-C detaches"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string top, ReadFile(folder_.path() + "/man1/llctl.1"));
  EXPECT_THAT(top, HasSubstr("Exit codes: 0 success"));
  EXPECT_EQ(Run({"man"}).code, kExitUsage);
}

}  // namespace
}  // namespace ll
