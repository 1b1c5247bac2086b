// llctl data
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "base/field_error.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"
#include "model/data/cli/data_commands.h"

namespace ll {
namespace {

struct AddOptions {
  std::string name;
  std::string path;
  bool is_default = false;
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
      table.Add({data.name(), data.is_default() ? "yes" : "", data.path()});
    output.PrintTable(table);
    if (response.data().empty())
      session.talk() << "llctl: no data; llctl data add NAME PATH --default\n";
  } else {
    output.PrintValue(ProtoToJson(response)["data"]);
  }
  return kExitSuccess;
}

// On this machine, without a coordinator.
absl::StatusOr<int> RunDataPack(const PackFlags& flags, Session& session) {
  std::ostream& talk = session.talk();
  const bool live = &talk == &std::cerr && isatty(STDERR_FILENO) != 0;
  LL_ASSIGN_OR_RETURN(const nlohmann::ordered_json result, RunPack(flags, {talk, live}));
  if (result.is_null()) return kExitSuccess;
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << flags.output << "\n";
  } else if (output.is_table()) {
    output.stream() << flags.output << ": " << HumanCount(result["tokens"]) << " tokens in "
                    << HumanCount(result["documents"]) << " documents\n";
  } else {
    output.PrintValue(result);
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunDataDoctor(const DoctorFlags& flags, Session& session) {
  LL_ASSIGN_OR_RETURN(const DoctorReport report, RunDoctor(flags));
  Output& output = session.output();
  if (output.is_table() || output.format() == OutputFormat::kName) {
    PrintDoctorReport(report, output.terminal(), output.stream());
  } else {
    output.PrintValue(DoctorJson(report));
  }
  return kExitSuccess;
}

void AddLocalCommands(CLI::App& data, Action& chosen) {
  auto pack = std::make_shared<PackFlags>();
  CLI::App* command =
      data.add_subcommand("pack", "Turn text, instructions or conversations into a token file.");
  AddPackFlags(*command, *pack);
  command->callback([pack, &chosen] {
    chosen = [pack](Session& session) { return RunDataPack(*pack, session); };
  });
  auto doctor = std::make_shared<DoctorFlags>();
  command =
      data.add_subcommand("doctor", "Say what training data hold: lengths, duplicates, targets.");
  AddDoctorFlags(*command, *doctor);
  command->callback([doctor, &chosen] {
    chosen = [doctor](Session& session) { return RunDataDoctor(*doctor, session); };
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
  add->add_flag("--default", options->is_default, "Jobs without --data train on this one.");
  add->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunDataAdd(*options, session); };
  });
  AddLocalCommands(*data, chosen);
}

}  // namespace ll
