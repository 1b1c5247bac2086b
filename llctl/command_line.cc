#include "llctl/command_line.h"

#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "llctl/examples.h"
#include "llctl/export.h"
#include "llctl/help_format.h"

namespace ll {
namespace {

constexpr char kLlctlFooter[] = R"(
Exit codes: 0 success, 1 the job failed, 2 usage, 3 refused, 4 coordinator unavailable, 5 timeout, 6 denied,
7 cancelled, 8 not found, 9 conflict, 130 detached by Ctrl-C.
Environment: LLCTL_COORDINATOR, LLCTL_TOKEN, LLCTL_CA, LLCTL_CONTEXT, LL_DATA_DIR, NO_COLOR.)";

}  // namespace

CommandLine::CommandLine()
    : app("Long-context fine-tuning jobs: submit, follow, control.", "llctl") {
  app.require_subcommand(1);
  app.fallthrough();  // global flags may stand behind the command
  app.formatter(std::make_shared<HelpFormat>());
  app.get_formatter()->column_width(34);
  AddGlobalFlags();
  for (auto add :
       {AddSubmitCommand,   AddPlanCommand,     AddListCommand,       AddTopCommand,
        AddGetCommand,      AddDescribeCommand, AddWatchCommand,      AddLogsCommand,
        AddControlCommands, AddWhyCommand,      AddDoctorCommand,     AddCheckpointsCommand,
        AddPlotCommand,     AddExportCommand,   AddVerifyCommand,     AddEvalCommand,
        AddChatCommand,     AddMergeCommand,    AddWorkersCommand,    AddQueuesCommand,
        AddScheduleCommand, AddModelsCommand,   AddDataCommand,       AddTokenCommand,
        AddLoginCommands,   AddVersionCommand,  AddCompletionCommand, AddManCommand}) {
    add(app, chosen);
  }
  app.footer(kLlctlFooter);  // last: commands inherit the footer that is set when they are added
  AddExamples(app);
}

void CommandLine::AddGlobalFlags() {
  app.set_version_flag("--version", "llctl " LL_VERSION, "Print llctl's own version and exit.");
  static const auto& formats =
      *new std::map<std::string, OutputFormat>{{"table", OutputFormat::kTable},
                                               {"json", OutputFormat::kJson},
                                               {"yaml", OutputFormat::kYaml},
                                               {"name", OutputFormat::kName}};
  app.add_option("--coordinator", client.coordinator,
                 "Coordinator's address. Default: LLCTL_COORDINATOR, else the one of this host.")
      ->type_name("HOST:PORT[,...]");
  app.add_option("--context", client.context,
                 "Named coordinator (llctl config). Default: LLCTL_CONTEXT, else the current one.")
      ->type_name("NAME");
  app.add_option_function<std::string>(
         "-o,--output", [this](const std::string& name) { format = formats.at(name); },
         "Format of the data on stdout. Default: table.")
      ->check(CLI::IsMember({"table", "json", "yaml", "name"}).description(""))
      ->type_name("table|json|yaml|name");
  app.add_option("--timeout", timeout_seconds, "Seconds to wait for an answer. Default: 30.")
      ->check(NumberFrom(0.001, 86'400))
      ->type_name("SECONDS");
  app.add_option("--token-file", client.token_file,
                 "File with the token. Default: LLCTL_TOKEN, else the local coordinator's.")
      ->type_name("FILE");
  app.add_option("--ca", client.ca_file,
                 "CA of the coordinator's certificate (PEM). Default: LLCTL_CA.")
      ->type_name("FILE");
  app.add_option("--data-dir", client.data_dir,
                 "Local coordinator's data folder. Default: LL_DATA_DIR, else ~/.local/share/ll.")
      ->type_name("DIR");
}

CLI::Validator NumberFrom(double low, double high) {
  return CLI::Validator(
      [low, high](const std::string& text) {
        double value = 0;
        if (absl::SimpleAtod(text, &value) && value >= low && value <= high) return std::string();
        return absl::StrCat("Value ", text, " not in range ", low, " to ", high);
      },
      "");
}

CLI::Validator DurationInSeconds() {
  return CLI::Validator(
      [](std::string& text) {
        double number = 0;
        absl::Duration duration;
        if (absl::SimpleAtod(text, &number)) return std::string();
        if (!absl::ParseDuration(text, &duration) || duration == absl::InfiniteDuration())
          return absl::StrCat("expected seconds, or a duration such as 90m or 24h, found ", text);
        text = absl::StrCat(absl::ToInt64Seconds(duration));
        return std::string();
      },
      "");
}

std::string CommandPath(const CLI::App& command) {
  if (command.get_parent() == nullptr) return "";
  const std::string above = CommandPath(*command.get_parent());
  return above.empty() ? command.get_name() : absl::StrCat(above, " ", command.get_name());
}

std::vector<const CLI::App*> SubCommands(const CLI::App& command) {
  return command.get_subcommands([](const CLI::App*) { return true; });
}

}  // namespace ll
