#include "llctl/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "llctl/command_line.h"
#include "llctl/errors.h"
#include "model/spec/spec_fields.h"

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

// What the user may have meant by an unknown flag; "" where nothing is near.
std::string NearestFlag(const std::vector<std::string>& unknown) {
  for (const std::string& argument : unknown) {
    if (argument.rfind("--", 0) != 0) continue;
    std::string key = argument.substr(2, argument.find('=') - 2);
    std::replace(key.begin(), key.end(), '-', '_');
    std::string nearest = NearestSpecKey(key);
    std::replace(nearest.begin(), nearest.end(), '_', '-');
    if (!nearest.empty()) return "--" + nearest;
  }
  return "";
}

absl::Status ParseFault(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* command = &app;
  std::string path = "llctl";
  while (!command->get_subcommands().empty()) {
    command = command->get_subcommands().front();
    path += " " + command->get_name();
  }
  std::string message = error.what();
  const std::string help = "see '" + path + " --help'";
  const std::vector<std::string> unknown = app.remaining(/*recurse=*/true);
  if (!unknown.empty()) {
    message = "unexpected: " + absl::StrJoin(unknown, " ");
    if (const std::string nearest = NearestFlag(unknown); !nearest.empty() && path != "llctl") {
      return FieldStatus(absl::StatusCode::kInvalidArgument, "", message,
                         "did you mean " + nearest + "? " + help);
    }
  }
  return FieldStatus(absl::StatusCode::kInvalidArgument, "", message, help);
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
  } catch (const CLI::CallForHelp&) {
    environment.out << app.help();
    return kExitSuccess;
  } catch (const CLI::CallForVersion& version) {
    environment.out << version.what() << "\n";
    return kExitSuccess;
  } catch (const CLI::ParseError& error) {
    PrintError(ParseFault(app, error), AsksForJson(arguments), environment.err);
    return kExitUsage;
  }

  line.client.timeout = absl::Seconds(line.timeout_seconds);
  Session session(environment, line.client, line.format);
  const absl::StatusOr<int> result = line.chosen(session);
  environment.out.flush();
  if (result.ok()) return *result;
  PrintError(result.status(), line.format == OutputFormat::kJson, environment.err);
  return ExitCodeOf(result.status());
}

}  // namespace ll
