// Runs scenario files: blocks of commands, "----", the expected answer, an empty line. Comments say
// why.
//
//   scenario_test DIR|FILE…            compares; exit 1 when a transcript differs
//   scenario_test --update DIR|FILE…   rewrites the expected answers, to be reviewed as any change
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "tests/scenarios/scenario.h"

namespace ll {
namespace {

struct Outcome {
  std::string text;         // the file with the actual answers
  std::string first_wrong;  // empty: as expected
};

// Lines are commands until "----", then the answer until an empty line; comments and empty lines
// between are kept.
Outcome RunFile(const std::string& text) {
  Outcome outcome;
  Scenario scenario;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  std::string answer, commands;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string& line = lines[i];
    if (line != "----") {
      if (i + 1 < lines.size() || !line.empty()) absl::StrAppend(&outcome.text, line, "\n");
      if (line.empty() || absl::StartsWith(line, "#")) continue;
      absl::StrAppend(&commands, line, "\n");
      absl::StrAppend(&answer, scenario.Execute(line));
      continue;
    }
    std::string expected;
    while (i + 1 < lines.size() && !lines[i + 1].empty())
      absl::StrAppend(&expected, lines[++i], "\n");
    absl::StrAppend(&outcome.text, "----\n", answer);
    if (answer != expected && outcome.first_wrong.empty()) {
      outcome.first_wrong =
          absl::StrCat(commands, "---- expected\n", expected, "---- got\n", answer);
    }
    answer.clear();
    commands.clear();
  }
  if (!commands.empty() && outcome.first_wrong.empty()) {
    outcome.first_wrong = absl::StrCat("commands without ----:\n", commands);
  }
  return outcome;
}

int Main(int argc, char** argv) {
  bool update = false;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--update") {
      update = true;
    } else if (IsDirectory(arg)) {
      const auto names = ListDir(arg);
      for (const std::string& name : names.ok() ? *names : std::vector<std::string>()) {
        if (absl::EndsWith(name, ".txt") && name != "CMakeLists.txt")
          files.push_back(absl::StrCat(arg, "/", name));
      }
    } else {
      files.push_back(arg);
    }
  }
  int passed = 0, failed = 0;
  for (const std::string& file : files) {
    const auto text = ReadFile(file);
    if (!text.ok()) {
      std::fprintf(stderr, "%s\n", text.status().ToString().c_str());
      return 2;
    }
    const Outcome outcome = RunFile(*text);
    if (update && outcome.text != *text && !WriteFileAtomic(file, outcome.text).ok()) return 2;
    const bool ok = update || outcome.first_wrong.empty();
    ++(ok ? passed : failed);
    if (!ok) std::printf("FAILED %s\n%s\n", file.c_str(), outcome.first_wrong.c_str());
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace
}  // namespace ll

int main(int argc, char** argv) { return ll::Main(argc, argv); }
