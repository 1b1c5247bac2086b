#include "llctl/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/edit_distance.h"
#include "base/field_error.h"
#include "base/usage_words.h"
#include "llctl/command_line.h"
#include "llctl/errors.h"

namespace ll {
namespace {

// Spec keys are written with underscores in YAML and with dashes as flags; both work as flags.
std::string WithDashes(const std::string& argument) {
  if (argument.rfind("--", 0) != 0) return argument;
  std::string out = argument;
  const size_t end = std::min(out.find('='), out.size());
  std::replace(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
  return out;
}

// Known before the command line is: a command line that cannot be parsed still wants its error as
// JSON.
bool AsksForJson(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string& a = arguments[i];
    if (a == "-ojson" || a == "--output=json") return true;
    if ((a == "-o" || a == "--output") && i + 1 < arguments.size() && arguments[i + 1] == "json")
      return true;
  }
  return false;
}

// What the user may have meant by the first argument that `command` does not know: one of its flags
// or, where it has any, of its subcommands. "" where nothing is near.
std::string Nearest(const CLI::App& command, const std::string& unknown) {
  std::vector<std::string> known;
  if (unknown.rfind("--", 0) == 0) {
    for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
      for (const CLI::Option* option : app->get_options())
        known.insert(known.end(), option->get_lnames().begin(), option->get_lnames().end());
    }
    const std::string nearest =
        NearestName(absl::string_view(unknown).substr(2, unknown.find('=') - 2), known);
    return nearest.empty() ? "" : "--" + nearest;
  }
  for (const CLI::App* app : command.get_subcommands(nullptr)) known.push_back(app->get_name());
  return NearestName(unknown, known);
}

// A script's `--steps "$STEPS"` without the variable: the default would be a surprise.
void RefuseEmptyValues(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options()) {
    const std::vector<std::string>& given = option->results();
    if (option->get_items_expected_max() > 0 &&
        std::find(given.begin(), given.end(), "") != given.end()) {
      throw CLI::ValidationError(option->get_name(), "expected a value, found an empty one");
    }
  }
  for (const CLI::App* one : command.get_subcommands()) RefuseEmptyValues(*one);
}

absl::Status ParseFault(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string path = "llctl";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  std::string message = UsageInWords(error.what());
  const std::string help = "see '" + path + " --help'";
  if (const auto names = SubCommands(*command);
      !names.empty() && dynamic_cast<const CLI::RequiredError*>(&error) != nullptr) {
    message = absl::StrCat("expected a command: ",
                           absl::StrJoin(names, ", ", [](std::string* out, const CLI::App* sub) {
                             out->append(sub->get_name());
                           }));
  }
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (!unknown.empty()) {
    message = "unexpected: " + absl::StrJoin(unknown, " ");
    if (const std::string nearest = Nearest(*command, unknown.front()); !nearest.empty()) {
      return FieldStatus(absl::StatusCode::kInvalidArgument, "", message,
                         "did you mean " + nearest + "? " + help);
    }
  }
  return FieldStatus(absl::StatusCode::kInvalidArgument, "", message, help);
}

// What could not be written was asked for: without it a command has not done its work.
int CheckWritten(const Environment& environment, bool json, int code) {
  if (environment.out.flush()) return code;
  const absl::Status lost =
      FieldStatus(absl::StatusCode::kInvalidArgument, "stdout", "cannot be written",
                  "is its disk full, or its reader gone?");
  PrintError(lost, json, environment.err);
  return code == kExitSuccess ? ExitCodeOf(lost) : code;
}

}  // namespace

int RunLlctl(const std::vector<std::string>& arguments, const Environment& environment) {
  CommandLine line;
  CLI::App& app = line.app;
  std::vector<std::string> reversed;  // the order CLI11 wants
  for (const std::string& argument : arguments) reversed.push_back(WithDashes(argument));
  std::reverse(reversed.begin(), reversed.end());
  try {
    app.parse(reversed);
    RefuseEmptyValues(app);
  } catch (const CLI::CallForHelp&) {
    environment.out << app.help();
    return CheckWritten(environment, AsksForJson(arguments), kExitSuccess);
  } catch (const CLI::CallForVersion& version) {
    environment.out << version.what() << "\n";
    return CheckWritten(environment, AsksForJson(arguments), kExitSuccess);
  } catch (const CLI::ParseError& error) {
    PrintError(ParseFault(app, error), AsksForJson(arguments), environment.err);
    return kExitUsage;
  }

  line.client.timeout = absl::Seconds(line.timeout_seconds);
  Session session(environment, line.client, line.format);
  const absl::StatusOr<int> result = line.chosen(session);
  const bool json = line.format == OutputFormat::kJson;
  if (result.ok()) return CheckWritten(environment, json, *result);
  environment.out.flush();
  PrintError(result.status(), json, environment.err);
  return ExitCodeOf(result.status());
}

}  // namespace ll
