// llctl data
#include <CLI/CLI.hpp>

#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/data_program.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"
#include "model/data/cli/data_flags.h"

namespace ll {
namespace {

struct AddOptions {
  std::string name;
  std::string path;
  bool is_default = false;
  std::string tenant;
};

absl::StatusOr<int> RunDataAdd(const AddOptions& options, Session& session) {
  if (options.path.empty() || options.path[0] != '/') {
    return MakeFieldError(
        {"path", "an absolute path of a token file on the workers", options.path});
  }
  v1::AddDataRequest request;
  request.set_name(options.name);
  request.set_path(options.path);
  request.set_is_default(options.is_default);
  request.set_tenant(options.tenant);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Data data,
                      client->Call(client->admin(), &v1::Admin::Stub::AddData, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << data.name() << "\n";
  } else if (output.is_table()) {
    output.stream() << data.name() << " is " << data.path()
                    << (data.is_default() ? " (the default)" : "") << "\n";
  } else {
    output.PrintValue(ProtoToJson(data));
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunDataList(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(
      v1::ListDataResponse response,
      client->Call(client->admin(), &v1::Admin::Stub::ListData, v1::ListDataRequest()));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Data& data : response.data()) output.stream() << data.name() << "\n";
  } else if (output.is_table()) {
    Table table({"DATA", "DEFAULT", "PATH"});
    for (const v1::Data& data : response.data())
      table.Add({data.tenant().empty() ? data.name() : data.tenant() + "/" + data.name(),
                 data.is_default() ? "yes" : "", data.path()});
    output.PrintTable(table);
    if (response.data().empty())
      session.talk() << "llctl: no data; llctl data add NAME PATH --default\n";
  } else {
    output.PrintValue(ProtoToJson(response)["data"]);
  }
  return kExitSuccess;
}

// On this machine, without a coordinator. `name`: what -o name prints.
absl::StatusOr<int> RunLocal(std::vector<std::string> arguments, const std::string& name,
                             Session& session) {
  Output& output = session.output();
  if (output.color()) arguments.insert(arguments.begin(), "--color");
  LL_ASSIGN_OR_RETURN(const DataProgramResult result, RunDataProgram(arguments));
  if (output.format() == OutputFormat::kName && !name.empty()) {
    output.stream() << name << "\n";
  } else if (output.is_table() || output.format() == OutputFormat::kName) {
    output.stream() << result.text;
  } else {
    output.PrintValue(result.value);
  }
  return kExitSuccess;
}

// The arguments of a command that was parsed, its name in front.
std::vector<std::string> WithName(const CLI::App& command) {
  std::vector<std::string> out = GivenArguments(command);
  out.insert(out.begin(), command.get_name());
  return out;
}

void AddLocalCommands(CLI::App& data, Action& chosen) {
  auto pack = std::make_shared<PackFlags>();
  CLI::App* command =
      data.add_subcommand("pack", "Turn text, instructions or conversations into a token file.");
  AddPackFlags(*command, *pack);
  command->callback([command, pack, &chosen] {
    chosen = [arguments = WithName(*command), pack](Session& session) {
      return RunLocal(arguments, pack->output, session);
    };
  });
  auto doctor = std::make_shared<DoctorFlags>();
  command =
      data.add_subcommand("doctor", "Say what training data hold: lengths, duplicates, targets.");
  AddDoctorFlags(*command, *doctor);
  command->callback([command, doctor, &chosen] {
    chosen = [arguments = WithName(*command)](Session& session) {
      return RunLocal(arguments, "", session);
    };
  });
}

}  // namespace

void AddDataCommand(CLI::App& app, Action& chosen) {
  CLI::App* data = app.add_subcommand("data", "Make and name training data.");
  data->require_subcommand(1);
  data->add_subcommand("list", "List the known token files.")->callback([&chosen] {
    chosen = RunDataList;
  });
  auto options = std::make_shared<AddOptions>();
  CLI::App* add = data->add_subcommand("add", "Give a token file on the workers a name.");
  add->add_option("NAME", options->name, "Name for `submit --data`.")->required();
  add->add_option("PATH", options->path, "The file, as the workers see it.")->required();
  add->add_option("--tenant", options->tenant, "Whose users may name it. Default: everybody.");
  add->add_flag("--default", options->is_default, "Jobs without --data train on this one.");
  add->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunDataAdd(*options, session); };
  });
  AddLocalCommands(*data, chosen);
}

}  // namespace ll
