#include "llctl/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "llctl/errors.h"
#include "llctl/help_format.h"
#include "model/spec/spec_fields.h"

namespace ll {
namespace {

constexpr char kFooter[] = R"(
Exit codes: 0 success, 1 the job failed, 2 usage, 3 refused, 4 coordinator unavailable, 5 timeout, 6 denied,
7 cancelled, 8 not found, 9 conflict, 130 detached by Ctrl-C.
Environment: LLCTL_COORDINATOR, LLCTL_TOKEN, LLCTL_CA, LLCTL_CONTEXT, LL_DATA_DIR, NO_COLOR.)";

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

struct GlobalFlags {
  ClientOptions client;
  OutputFormat format = OutputFormat::kTable;
  double timeout_seconds = 30;
};

void AddGlobalFlags(CLI::App& app, GlobalFlags& flags) {
  const std::vector<std::pair<std::string, OutputFormat>> formats = {
      {"table", OutputFormat::kTable},
      {"json", OutputFormat::kJson},
      {"yaml", OutputFormat::kYaml},
      {"name", OutputFormat::kName}};
  app.add_option("--coordinator", flags.client.coordinator,
                 "Coordinator's address. Default: LLCTL_COORDINATOR, else the one of this host.")
      ->type_name("HOST:PORT[,...]");
  app.add_option("--context", flags.client.context,
                 "Named coordinator (llctl config). Default: LLCTL_CONTEXT, else the current one.")
      ->type_name("NAME");
  app.add_option("-o,--output", flags.format, "Format of the data on stdout. Default: table.")
      ->transform(CLI::Transformer(formats).description(""))
      ->type_name("table|json|yaml|name");
  app.add_option("--timeout", flags.timeout_seconds, "Seconds to wait for an answer. Default: 30.")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("SECONDS");
  app.add_option("--token-file", flags.client.token_file,
                 "File with the token. Default: LLCTL_TOKEN, else the local coordinator's.")
      ->type_name("FILE");
  app.add_option("--ca", flags.client.ca_file,
                 "CA of the coordinator's certificate (PEM). Default: LLCTL_CA.")
      ->type_name("FILE");
  app.add_option("--data-dir", flags.client.data_dir,
                 "Local coordinator's data folder. Default: LL_DATA_DIR, else ~/.local/share/ll.")
      ->type_name("DIR");
}

}  // namespace

int RunLlctl(const std::vector<std::string>& arguments, const Environment& environment) {
  CLI::App app("Long-context fine-tuning jobs: submit, follow, control.", "llctl");
  app.require_subcommand(1);
  app.fallthrough();  // global flags may stand behind the command
  app.formatter(std::make_shared<HelpFormat>());
  app.get_formatter()->column_width(34);
  GlobalFlags flags;
  AddGlobalFlags(app, flags);
  Action chosen;
  for (auto add : {AddSubmitCommand,   AddPlanCommand,        AddListCommand,      AddGetCommand,
                   AddWatchCommand,    AddLogsCommand,        AddControlCommands,  AddWhyCommand,
                   AddDoctorCommand,   AddCheckpointsCommand, AddVerifyCommand,    AddEvalCommand,
                   AddChatCommand,     AddMergeCommand,       AddWorkersCommand,   AddQueuesCommand,
                   AddScheduleCommand, AddModelsCommand,      AddDataCommand,      AddTokenCommand,
                   AddLoginCommands,   AddVersionCommand,     AddCompletionCommand}) {
    add(app, chosen);
  }
  app.footer(kFooter);  // last: commands inherit the footer that is set when they are added

  std::vector<std::string> reversed;  // the order CLI11 wants
  for (const std::string& argument : arguments) reversed.push_back(WithDashes(argument));
  std::reverse(reversed.begin(), reversed.end());
  try {
    app.parse(reversed);
  } catch (const CLI::CallForHelp&) {
    environment.out << app.help();
    return kExitSuccess;
  } catch (const CLI::ParseError& error) {
    PrintError(ParseFault(app, error), AsksForJson(arguments), environment.err);
    return kExitUsage;
  }

  flags.client.timeout = absl::Seconds(flags.timeout_seconds);
  Session session(environment, flags.client, flags.format);
  const absl::StatusOr<int> result = chosen(session);
  environment.out.flush();
  if (result.ok()) return *result;
  PrintError(result.status(), flags.format == OutputFormat::kJson, environment.err);
  return ExitCodeOf(result.status());
}

}  // namespace ll
