// llctl workers
#include <map>

#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "base/terminal_text.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

// "2 × cpu, 8.0 GB each", one part per kind.
std::string SlotsText(const v1::Worker& worker) {
  std::map<std::pair<std::string, int64_t>, int> kinds;
  for (const v1::Slot& slot : worker.slots()) ++kinds[{slot.kind(), slot.memory_bytes()}];
  std::vector<std::string> parts;
  for (const auto& [kind, count] : kinds) {
    parts.push_back(absl::StrCat(count, " x ", kind.first, ", ", HumanBytes(kind.second), " each"));
  }
  return absl::StrJoin(parts, "; ");
}

std::string UsesText(const v1::Worker& worker) {
  std::vector<std::string> parts;
  for (const v1::SlotUse& use : worker.uses()) {
    parts.push_back(absl::StrCat(use.slot(), ":", use.job_id(), "/", use.rank()));
  }
  return absl::StrJoin(parts, " ");
}

absl::StatusOr<int> RunWorkersList(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(
      v1::ListWorkersResponse response,
      client->Call(client->admin(), &v1::Admin::Stub::ListWorkers, v1::ListWorkersRequest()));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Worker& worker : response.workers()) output.stream() << worker.worker() << "\n";
  } else if (output.is_table()) {
    Table table({"WORKER", "HOST", "CONTACT", "SERVICE", "USED", "SLOTS", "VERSION", "RUNS"});
    for (const v1::Worker& worker : response.workers()) {
      table.Add(
          {worker.worker(), worker.host(),
           worker.connected() ? "connected" : AgeText(worker.last_seen(), session.now()) + " ago",
           worker.cordoned() ? worker.cordon_reason() : "in service",
           absl::StrCat(worker.uses_size(), "/", worker.slots_size()), SlotsText(worker),
           worker.version(), UsesText(worker)});
    }
    output.PrintTable(table);
    if (response.workers().empty())
      session.talk() << "llctl: no workers; start ll-worker on a host\n";
  } else {
    output.PrintValue(ProtoToJson(response)["workers"]);
  }
  return kExitSuccess;
}

struct CordonOptions {
  std::string worker;
  std::string reason;
};

absl::StatusOr<int> RunCordon(const CordonOptions& options, v1::CordonWorkerRequest::Action action,
                              Session& session) {
  v1::CordonWorkerRequest request;
  request.set_worker(options.worker);
  request.set_action(action);
  request.set_reason(options.reason);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Worker worker,
                      client->Call(client->admin(), &v1::Admin::Stub::CordonWorker, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << worker.worker() << "\n";
  } else if (output.is_table()) {
    output.stream() << worker.worker() << ": "
                    << (worker.cordoned() ? Shown(worker.cordon_reason()) : "in service") << "\n";
  } else {
    output.PrintValue(ProtoToJson(worker));
  }
  return kExitSuccess;
}

void AddCordon(CLI::App& workers, const std::string& name, const std::string& help,
               v1::CordonWorkerRequest::Action action, Action& chosen) {
  auto options = std::make_shared<CordonOptions>();
  CLI::App* command = workers.add_subcommand(name, help);
  command->add_option("WORKER", options->worker, "Name, as in `workers list`.")->required();
  if (action != v1::CordonWorkerRequest::UNCORDON)
    command->add_option("--reason", options->reason, "Why, for others.")->type_name("TEXT");
  command->callback([options, action, &chosen] {
    chosen = [options, action](Session& session) { return RunCordon(*options, action, session); };
  });
}

}  // namespace

void AddWorkersCommand(CLI::App& app, Action& chosen) {
  CLI::App* workers = app.add_subcommand("workers", "The hosts that run jobs.");
  workers->require_subcommand(1);
  workers->add_subcommand("list", "List workers and what runs on their slots.")
      ->callback([&chosen] { chosen = RunWorkersList; });
  AddCordon(*workers, "cordon", "Give a worker no new jobs; what runs there goes on.",
            v1::CordonWorkerRequest::CORDON, chosen);
  AddCordon(*workers, "uncordon", "Give a worker jobs again.", v1::CordonWorkerRequest::UNCORDON,
            chosen);
  AddCordon(*workers, "drain", "Cordon a worker and move its jobs away, after a checkpoint.",
            v1::CordonWorkerRequest::DRAIN, chosen);
}

}  // namespace ll
