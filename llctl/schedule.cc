// llctl schedule
#include <tuple>

#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/command_line.h"
#include "llctl/errors.h"
#include "llctl/plan.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"
#include "llctl/spec_flags.h"

namespace ll {
namespace {

struct CreateOptions {
  SpecFlags spec;
  std::string name, cron, time_zone, missed, overlap;
  std::optional<int64_t> start_within, history;
  std::optional<double> loss, perplexity, tokens_per_second, memory;
  bool replace = false;
};

// Fire times are whole minutes.
std::string ShowTime(const google::protobuf::Timestamp& time) {
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", ToTime(time), absl::UTCTimeZone());
}

std::string TimeOr(bool has, const google::protobuf::Timestamp& time, const char* otherwise) {
  return has ? ShowTime(time) : otherwise;
}

std::string VerdictText(const v1::ScheduleRun& run) {
  if (run.verdict() == v1::ScheduleRun::PENDING) return "-";
  return absl::AsciiStrToLower(v1::ScheduleRun::Verdict_Name(run.verdict()));
}

std::string NextText(const v1::Schedule& schedule) {
  if (!schedule.problem().empty()) return "never: " + schedule.problem();
  if (schedule.paused()) return "paused by " + schedule.paused_by();
  return TimeOr(schedule.has_next_fire(), schedule.next_fire(), "-");
}

void PrintSchedules(const std::vector<v1::Schedule>& schedules, Output& output) {
  Table table({"SCHEDULE", "CRON", "TIME ZONE", "NEXT", "LAST", "VERDICT"});
  for (const v1::Schedule& schedule : schedules) {
    table.Add({schedule.name(), schedule.cron(), schedule.time_zone(), NextText(schedule),
               TimeOr(schedule.has_last_fire(), schedule.last_fire(), "-"),
               schedule.has_last_run() ? VerdictText(schedule.last_run()) : "-"});
  }
  output.PrintTable(table);
}

// The schedule that a command made or changed.
int PrintSchedule(const v1::Schedule& schedule, Session& session) {
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << schedule.name() << "\n";
  } else if (output.is_table()) {
    PrintSchedules({schedule}, output);
  } else {
    output.PrintValue(ProtoToJson(schedule));
  }
  return kExitSuccess;
}

std::string FiresText(const v1::ScheduleRun& run) {
  const std::string last = ShowTime(run.fire_time());
  if (run.fires() <= 1) return last;
  return absl::StrCat(last, " and ", run.fires() - 1, run.fires_more() ? " or more" : "",
                      " before, from ", ShowTime(run.first_fire_time()));
}

std::string JobText(const v1::ScheduleRun& run) {
  const int others = run.before_job_ids_size();
  return others == 0 ? run.job_id() : absl::StrCat(run.job_id(), " after ", others, " others");
}

std::string RunReason(const v1::ScheduleRun& run) {
  if (run.verdict_reason().empty()) return run.reason();
  return run.reason().empty() ? run.verdict_reason()
                              : absl::StrCat(run.verdict_reason(), " [", run.reason(), "]");
}

void PrintRuns(const v1::Schedule& schedule, Output& output) {
  const auto number = [](bool has, double value) {
    return has ? absl::StrFormat("%.4g", value) : "-";
  };
  Table table(
      {"RUN", "FIRE TIME", "JOB", "STATE", "LOSS", "PPL", "TOK/S", "MEMORY", "VERDICT", "REASON"});
  for (const v1::ScheduleRun& run : schedule.runs()) {
    const bool left_out = run.job_id().empty();
    table.Add({absl::StrCat(run.number()), FiresText(run), left_out ? "-" : JobText(run),
               left_out           ? "left out"
               : run.state() == 0 ? "deleted"
                                  : v1::JobState_Name(run.state()),
               number(run.has_final_loss(), run.final_loss()),
               number(run.has_perplexity(), run.perplexity()),
               number(run.has_tokens_per_second(), run.tokens_per_second()),
               run.has_peak_bytes() ? HumanBytes(run.peak_bytes()) : "-", VerdictText(run),
               RunReason(run)});
  }
  output.PrintTable(table);
}

void PrintDetails(const v1::Schedule& schedule, Output& output) {
  const v1::Tolerances& t = schedule.tolerances();
  std::vector<std::pair<std::string, std::string>> fields = {
      {"schedule", schedule.name()},
      {"cron", absl::StrCat(schedule.cron(), " in ", schedule.time_zone())},
      {"next", NextText(schedule)},
      {"missed", schedule.missed()},
      {"overlap", schedule.overlap()},
      {"start within",
       schedule.has_start_within() ? HumanDuration(absl::Seconds(schedule.start_within())) : ""},
      {"history", absl::StrCat(schedule.history_limit(), " runs")},
      {"tolerances", absl::StrFormat("loss %g, perplexity %g, tokens/s %g, memory %g", t.loss(),
                                     t.perplexity(), t.tokens_per_second(), t.memory())},
      {"user", schedule.user()},
      {"created", ShowTime(schedule.created())},
      {"spec", SpecText(schedule.spec())},
  };
  std::erase_if(fields, [](const auto& field) { return field.second.empty(); });
  output.PrintFields(fields);
  if (schedule.runs_size() == 0) return;
  output.stream() << "\n";
  PrintRuns(schedule, output);
}

absl::StatusOr<int> RunCreate(const CreateOptions& options, Session& session) {
  v1::CreateScheduleRequest request;
  request.set_replace(options.replace);
  v1::Schedule& schedule = *request.mutable_schedule();
  LL_ASSIGN_OR_RETURN(*schedule.mutable_spec(), BuildSpec(options.spec, session));
  schedule.set_name(options.name);
  schedule.set_cron(options.cron);
  schedule.set_time_zone(options.time_zone);
  schedule.set_missed(options.missed);
  schedule.set_overlap(options.overlap);
  if (options.start_within) schedule.set_start_within(*options.start_within);
  if (options.history) schedule.set_history_limit(*options.history);
  v1::Tolerances* tolerances = schedule.mutable_tolerances();
  if (options.loss) tolerances->set_loss(*options.loss);
  if (options.perplexity) tolerances->set_perplexity(*options.perplexity);
  if (options.tokens_per_second) tolerances->set_tokens_per_second(*options.tokens_per_second);
  if (options.memory) tolerances->set_memory(*options.memory);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Schedule made,
                      client->Call(client->schedules(), &v1::Schedules::Stub::Create, request));
  return PrintSchedule(made, session);
}

absl::StatusOr<int> RunList(Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(
      v1::ListSchedulesResponse response,
      client->Call(client->schedules(), &v1::Schedules::Stub::List, v1::ListSchedulesRequest()));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Schedule& schedule : response.schedules())
      output.stream() << schedule.name() << "\n";
  } else if (output.is_table()) {
    PrintSchedules({response.schedules().begin(), response.schedules().end()}, output);
    if (response.schedules().empty())
      session.talk() << "llctl: no schedules; llctl schedule create NAME --cron \"0 2 * * *\" …\n";
  } else {
    output.PrintValue(ProtoToJson(response)["schedules"]);
  }
  return kExitSuccess;
}

absl::StatusOr<int> RunShow(const std::string& name, Session& session) {
  v1::GetScheduleRequest request;
  request.set_name(name);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Schedule schedule,
                      client->Call(client->schedules(), &v1::Schedules::Stub::Get, request));
  if (!session.output().is_table()) return PrintSchedule(schedule, session);
  PrintDetails(schedule, session.output());
  return kExitSuccess;
}

absl::StatusOr<int> RunNow(const std::string& name, Session& session) {
  v1::RunScheduleRequest request;
  request.set_name(name);
  // With it the channel's retries are safe.
  request.set_request_id(NewRequestId(session.environment().random));
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Job job,
                      client->Call(client->schedules(), &v1::Schedules::Stub::Run, request));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    output.stream() << JobLine(job, output) << "\n";
  } else {
    output.PrintValue(ProtoToJson(job));
  }
  return kExitSuccess;
}

template <typename Request>
absl::StatusOr<int> Change(grpc::Status (v1::Schedules::Stub::*method)(grpc::ClientContext*,
                                                                       const Request&,
                                                                       v1::Schedule*),
                           const std::string& name, Session& session) {
  Request request;
  request.set_name(name);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Schedule schedule, client->Call(client->schedules(), method, request));
  return PrintSchedule(schedule, session);
}

absl::StatusOr<int> RunDelete(const std::string& name, Session& session) {
  v1::DeleteScheduleRequest request;
  request.set_name(name);
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(v1::Schedule gone,
                      client->Call(client->schedules(), &v1::Schedules::Stub::Delete, request));
  if (!session.output().is_table()) return PrintSchedule(gone, session);
  session.talk() << "llctl: deleted schedule " << name << "; jobs of its runs go on\n";
  return kExitSuccess;
}

void AddCreate(CLI::App& schedule, Action& chosen) {
  auto options = std::make_shared<CreateOptions>();
  CLI::App* create = schedule.add_subcommand(
      "create", "Make a schedule; its job is checked now and submitted at every fire time.");
  create->add_option("SCHEDULE", options->name, "Name of the schedule.")->required();
  create
      ->add_option("--cron", options->cron,
                   "Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, "
                   "@monthly, @yearly.")
      ->required()
      ->type_name("\"0 2 * * *\"");
  create->add_option("--tz", options->time_zone, "Time zone of --cron. Default: UTC.")
      ->type_name("Europe/Berlin");
  create
      ->add_option("--missed", options->missed,
                   "Fire times that passed while the coordinator was away: make up for the last "
                   "one, skip them, or make up for all (at most 100). Default: last.")
      ->type_name("last|skip|all");
  create
      ->add_option("--overlap", options->overlap,
                   "While an earlier run has not ended: skip the fire, queue its job behind, or "
                   "cancel the old one. Default: skip.")
      ->type_name("skip|queue|cancel_old");
  create
      ->add_option("--start-within", options->start_within,
                   "A fire that is later by so many seconds (or 90m, 24h) is left out. Default: no "
                   "limit.")
      ->type_name("SECONDS")
      ->transform(DurationInSeconds());
  create->add_option("--history", options->history, "Records of runs to keep. Default: 30.")
      ->type_name("N");
  const auto tolerance = [&](const char* flag, std::optional<double>& value, const char* help) {
    create->add_option(flag, value, help)->type_name("RATIO");
  };
  tolerance("--tolerance-loss", options->loss,
            "Difference to the last good run that counts as none. Default: 0.01.");
  tolerance("--tolerance-perplexity", options->perplexity, "Default: 0.02.");
  tolerance("--tolerance-tokens-per-second", options->tokens_per_second, "Default: 0.1.");
  tolerance("--tolerance-memory", options->memory, "Default: 0.1.");
  create->add_flag("--replace", options->replace,
                   "Replace the schedule of that name; verdicts begin with a new baseline.");
  options->spec.AddTo(*create);
  create->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunCreate(*options, session); };
  });
}

}  // namespace

void AddScheduleCommand(CLI::App& app, Action& chosen) {
  CLI::App* schedule = app.add_subcommand("schedule", "Jobs that are submitted by the clock.");
  schedule->require_subcommand(1);
  AddCreate(*schedule, chosen);
  schedule->add_subcommand("list", "List schedules, their next fire and last verdict.")
      ->callback([&chosen] { chosen = RunList; });
  using Run = absl::StatusOr<int> (*)(const std::string&, Session&);
  const std::vector<std::tuple<const char*, const char*, Run>> commands = {
      {"show", "A schedule and its runs with their verdicts.", RunShow},
      {"run", "Submit its job now, also while it is paused.", RunNow},
      {"pause", "Fire no more until it is resumed.",
       [](const std::string& name, Session& session) {
         return Change(&v1::Schedules::Stub::Pause, name, session);
       }},
      {"resume", "Fire again; what passed meanwhile was not missed.",
       [](const std::string& name, Session& session) {
         return Change(&v1::Schedules::Stub::Resume, name, session);
       }},
      {"delete", "Delete it with its history; jobs of its runs go on.", RunDelete}};
  for (const auto& [command, help, run] : commands) {
    auto name = std::make_shared<std::string>();
    CLI::App* added = schedule->add_subcommand(command, help);
    added->add_option("SCHEDULE", *name, "Name of the schedule.")->required();
    added->callback([name, run = run, &chosen] {
      chosen = [name, run](Session& session) { return run(*name, session); };
    });
  }
}

}  // namespace ll
