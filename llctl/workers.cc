// llctl workers
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"
#include "base/status_macros.h"
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
    Table table({"WORKER", "HOST", "CONTACT", "USED", "SLOTS", "VERSION", "RUNS"});
    for (const v1::Worker& worker : response.workers()) {
      table.Add(
          {worker.worker(), worker.host(),
           worker.connected() ? "connected" : AgeText(worker.last_seen(), session.now()) + " ago",
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

}  // namespace

void AddWorkersCommand(CLI::App& app, Action& chosen) {
  CLI::App* workers = app.add_subcommand("workers", "The hosts that run jobs.");
  workers->require_subcommand(1);
  workers->add_subcommand("list", "List workers and what runs on their slots.")
      ->callback([&chosen] { chosen = RunWorkersList; });
}

}  // namespace ll
