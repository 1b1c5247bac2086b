// llctl models
#include <CLI/CLI.hpp>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

// A longer one is for the workers to judge: it does not fit into a request.
constexpr size_t kMaxConfigBytes = 1 << 20;

struct AddOptions {
  std::string name;
  std::string path;
  std::string tenant;
};

absl::StatusOr<int> RunModelsAdd(const AddOptions& options, Session& session) {
  if (options.path.empty() || options.path[0] != '/') {
    return MakeFieldError({"path", "an absolute path of a folder on the workers", options.path});
  }
  v1::AddModelRequest request;
  request.set_name(options.name);
  request.set_path(options.path);
  request.set_tenant(options.tenant);
  // Where the folder is readable from here too, the coordinator can forecast before a worker has
  // looked.
  if (absl::StatusOr<std::string> config = ReadFile(options.path + "/config.json");
      config.ok() && config->size() <= kMaxConfigBytes) {
    request.set_config_json(*config);
  }
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Model model,
                      client->Call(client->admin(), &v1::Admin::Stub::AddModel, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << model.name() << "\n";
  } else if (output.is_table()) {
    output.stream() << model.name() << " is " << model.path()
                    << (model.verified() ? "" : " (unverified: no worker has looked yet)") << "\n";
  } else {
    output.PrintValue(ProtoToJson(model));
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunModelsList(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(
      v1::ListModelsResponse response,
      client->Call(client->admin(), &v1::Admin::Stub::ListModels, v1::ListModelsRequest()));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Model& model : response.models()) output.stream() << model.name() << "\n";
  } else if (output.is_table()) {
    Table table({"MODEL", "WEIGHTS", "PATH"});
    for (const v1::Model& model : response.models()) {
      const bool registered = !model.path().empty();
      table.Add({model.tenant().empty() ? model.name() : model.tenant() + "/" + model.name(),
                 !registered        ? "not registered"
                 : model.verified() ? "verified"
                                    : "unverified",
                 registered ? model.path() : "llctl models add " + model.name() + " PATH"});
    }
    output.PrintTable(table);
  } else {
    output.PrintValue(ProtoToJson(response)["models"]);
  }
  return kExitSuccess;
}

}  // namespace

void AddModelsCommand(CLI::App& app, Action& chosen) {
  CLI::App* models = app.add_subcommand("models", "Names for weights that lie on the workers.");
  models->require_subcommand(1);
  models->add_subcommand("list", "List the known models.")->callback([&chosen] {
    chosen = RunModelsList;
  });
  auto options = std::make_shared<AddOptions>();
  CLI::App* add =
      models->add_subcommand("add", "Give a Hugging Face folder on the workers a name.");
  add->add_option("NAME", options->name, "Name for `submit --model`.")->required();
  add->add_option("PATH", options->path, "The folder, as the workers see it.")->required();
  add->add_option("--tenant", options->tenant, "Whose users may name it. Default: everybody.");
  add->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunModelsAdd(*options, session); };
  });
}

}  // namespace ll
