// llctl queues
#include <CLI/CLI.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

struct QueueOptions {
  std::string name;
  double weight = 1;
  std::optional<int> quota_gpus, max_gpus, max_jobs;
};

std::string Limit(bool has, int value) { return has ? absl::StrCat(value) : "-"; }

void PrintQueues(const v1::ListQueuesResponse& response, Session& session) {
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Queue& queue : response.queues()) output.stream() << queue.name() << "\n";
  } else if (output.is_table()) {
    Table table({"QUEUE", "WEIGHT", "QUOTA", "MAX GPUS", "MAX JOBS", "GPUS", "RUNNING", "WAITING",
                 "SHARE"});
    for (const v1::Queue& queue : response.queues()) {
      table.Add({queue.name(), absl::StrCat(queue.weight()),
                 Limit(queue.has_quota_gpus(), queue.quota_gpus()),
                 Limit(queue.has_max_gpus(), queue.max_gpus()),
                 Limit(queue.has_max_jobs(), queue.max_jobs()), absl::StrCat(queue.held_gpus()),
                 absl::StrCat(queue.running_jobs()), absl::StrCat(queue.waiting_jobs()),
                 absl::StrFormat("%.3f", queue.share())});
    }
    output.PrintTable(table);
  } else {
    output.PrintValue(ProtoToJson(response)["queues"]);
  }
}

absl::StatusOr<int> RunQueuesList(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(
      v1::ListQueuesResponse response,
      client->Call(client->admin(), &v1::Admin::Stub::ListQueues, v1::ListQueuesRequest()));
  PrintQueues(response, session);
  return kExitSuccess;
}

absl::StatusOr<int> RunQueuesSet(const QueueOptions& options, Session& session) {
  v1::SetQueueRequest request;
  v1::Queue* queue = request.mutable_queue();
  queue->set_name(options.name);
  queue->set_weight(options.weight);
  if (options.quota_gpus.has_value()) queue->set_quota_gpus(*options.quota_gpus);
  if (options.max_gpus.has_value()) queue->set_max_gpus(*options.max_gpus);
  if (options.max_jobs.has_value()) queue->set_max_jobs(*options.max_jobs);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  v1::ListQueuesResponse made;
  LL_ASSIGN_OR_RETURN(*made.add_queues(),
                      client->Call(client->admin(), &v1::Admin::Stub::SetQueue, request));
  PrintQueues(made, session);
  return kExitSuccess;
}

}  // namespace

void AddQueuesCommand(CLI::App& app, Action& chosen) {
  CLI::App* queues = app.add_subcommand("queues", "Shares of the cluster.");
  queues->require_subcommand(1);
  queues->add_subcommand("list", "List queues, their limits and what they hold.")
      ->callback([&chosen] { chosen = RunQueuesList; });
  auto options = std::make_shared<QueueOptions>();
  CLI::App* set = queues->add_subcommand(
      "set", "Make a queue or replace its weight and limits; what is left out has no limit.");
  set->add_option("NAME", options->name, "Name for `submit --queue`.")->required();
  set->add_option("--weight", options->weight,
                  "Of two busy queues the one of weight 2 gets twice as much. Default: 1.");
  set->add_option("--quota-gpus", options->quota_gpus,
                  "Its own; beyond it jobs borrow and may be preempted by the owners.");
  set->add_option("--max-gpus", options->max_gpus, "Never more, borrowed or not.");
  set->add_option("--max-jobs", options->max_jobs, "Running at once.");
  set->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunQueuesSet(*options, session); };
  });
}

}  // namespace ll
