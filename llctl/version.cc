// llctl version
#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

absl::StatusOr<int> RunVersion(bool client_only, Session& session) {
  nlohmann::ordered_json value = {{"client", LL_VERSION}};
  if (!client_only) {
    LL_ASSIGN_OR_RETURN(Client * client, session.client());
    absl::StatusOr<v1::VersionResponse> response =
        client->Call(client->admin(), &v1::Admin::Stub::Version, v1::VersionRequest());
    // The client's own version is still an answer.
    if (response.ok()) {
      value["coordinator"] = ProtoToJson(*response);
    } else {
      session.talk() << "llctl: " << response.status().message() << "\n";
    }
  }
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << LL_VERSION << "\n";
  } else if (output.is_table()) {
    output.stream() << "llctl " << LL_VERSION << "\n";
    if (value.contains("coordinator")) {
      const auto& coordinator = value["coordinator"];
      output.stream() << "ll-coordinator " << coordinator["version"].get<std::string>()
                      << " (store " << coordinator["store"].get<std::string>() << ", term "
                      << coordinator["term"] << ")\n";
    }
  } else {
    output.PrintValue(value);
  }
  return kExitSuccess;
}

}  // namespace

void AddVersionCommand(CLI::App& app, Action& chosen) {
  auto client_only = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("version", "Versions of llctl and of the coordinator.");
  command->add_flag("--client", *client_only, "Do not ask the coordinator.");
  command->callback([client_only, &chosen] {
    chosen = [client_only](Session& session) { return RunVersion(*client_only, session); };
  });
}

}  // namespace ll
