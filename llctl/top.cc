// llctl top
#include <CLI/CLI.hpp>
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/command_line.h"
#include "llctl/errors.h"
#include "llctl/live_screen.h"
#include "llctl/session.h"
#include "llctl/top_text.h"

namespace ll {
namespace {

constexpr absl::Duration kTopGivesUpAfter = absl::Minutes(5);
constexpr int kTopPage = 1000;

struct TopOptions {
  bool once = false;
  double interval_seconds = 2;
};

absl::StatusOr<TopSnapshot> TakeSnapshot(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  TopSnapshot snapshot;
  snapshot.coordinator = client->address();
  LL_ASSIGN_OR_RETURN(
      v1::ListWorkersResponse workers,
      client->Call(client->admin(), &v1::Admin::Stub::ListWorkers, v1::ListWorkersRequest()));
  snapshot.workers.assign(workers.workers().begin(), workers.workers().end());
  v1::ListRequest request;
  request.set_page_size(kTopPage);
  for (int state = v1::JobState_MIN; state <= v1::JobState_MAX; ++state) {
    const auto known = static_cast<v1::JobState>(state);
    if (known != v1::JOB_STATE_UNSPECIFIED && !HasEnded(known)) request.add_states(known);
  }
  do {
    LL_ASSIGN_OR_RETURN(v1::ListResponse page,
                        client->Call(client->jobs(), &v1::Jobs::Stub::List, request));
    for (v1::Job& job : *page.mutable_jobs()) snapshot.jobs.push_back(std::move(job));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  snapshot.time = session.now();
  return snapshot;
}

// Redraws until Ctrl-C. The last good state stays on the screen while the coordinator is away.
absl::StatusOr<int> RunLiveTop(TopSnapshot snapshot, absl::Duration interval, Session& session) {
  const Environment& environment = session.environment();
  LiveScreen screen(environment.out);
  absl::Duration last_contact = environment.clock.Steady();
  while (true) {
    const TerminalSize size = session.terminal_size();
    screen.Show(TopLines(snapshot, std::max(0, size.columns - 1), std::max(0, size.rows - 1),
                         session.output().color()),
                size);
    if (environment.interrupt.SleepFor(interval)) return kExitSuccess;
    absl::StatusOr<TopSnapshot> next = TakeSnapshot(session);
    if (environment.interrupt.raised()) return kExitSuccess;
    const absl::Duration now = environment.clock.Steady();
    if (next.ok()) {
      snapshot = *std::move(next);
      last_contact = now;
      continue;
    }
    const bool passing =
        absl::IsUnavailable(next.status()) || absl::IsDeadlineExceeded(next.status());
    if (!passing || now - last_contact > kTopGivesUpAfter) return next.status();
    snapshot.trouble = absl::StrCat("not fresh: ", std::string(next.status().message()),
                                    "; trying again every ", HumanDuration(interval));
  }
}

absl::StatusOr<int> RunTop(const TopOptions& options, Session& session) {
  Output& output = session.output();
  const bool live = output.is_table() && output.terminal() && !options.once;
  if (live) session.environment().interrupt.Arm();
  LL_ASSIGN_OR_RETURN(TopSnapshot snapshot, TakeSnapshot(session));
  if (live)
    return RunLiveTop(std::move(snapshot), absl::Seconds(options.interval_seconds), session);
  if (output.format() == OutputFormat::kName) {
    for (const v1::Job& job : snapshot.jobs) output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    const int width = output.terminal() ? session.environment().columns : 0;
    for (const std::string& line : TopLines(snapshot, width, 0, output.color()))
      output.stream() << line << "\n";
  } else {
    output.PrintValue(TopJson(snapshot));
  }
  return kExitSuccess;
}

}  // namespace

void AddTopCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* command = app.add_subcommand(
      "top", "What runs now, by job and by slot; on a terminal until Ctrl-C, redrawn in place.");
  command->add_flag("--once", options->once, "Print it once, also on a terminal.");
  command->add_option("--interval", options->interval_seconds, "Between two looks. Default: 2.")
      ->check(NumberFrom(0.2, 3600))
      ->type_name("SECONDS");
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunTop(*options, session); };
  });
}

}  // namespace ll
