// llctl list
#include <CLI/CLI.hpp>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

constexpr int kLargestPage = 1000;

struct ListOptions {
  bool all = false;
  int limit = 100;
  std::vector<std::string> states;
  std::vector<std::string> labels;  // KEY=VALUE, or KEY
};

absl::StatusOr<std::vector<v1::Job>> FetchJobs(const ListOptions& options, Session& session) {
  v1::ListRequest request;
  for (const std::string& text : options.states) {
    v1::JobState state;
    if (!v1::JobState_Parse(absl::AsciiStrToUpper(text), &state) ||
        state == v1::JOB_STATE_UNSPECIFIED) {
      return MakeFieldError({"state", "a job state such as RUNNING or QUEUED", text});
    }
    request.add_states(state);
  }
  for (const std::string& text : options.labels) {
    const std::vector<std::string> parts = absl::StrSplit(text, absl::MaxSplits('=', 1));
    if (parts[0].empty()) return MakeFieldError({"label", "KEY=VALUE or KEY", text});
    const std::string value = parts.size() == 2 ? parts[1] : "";
    if (!request.mutable_labels()->insert({parts[0], value}).second)
      return MakeFieldError({"label", "each key once", absl::StrCat(parts[0], " twice")});
  }
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  std::vector<v1::Job> jobs;
  do {
    const int wanted = options.all ? kLargestPage : options.limit - static_cast<int>(jobs.size());
    request.set_page_size(std::min(wanted, kLargestPage));
    LL_ASSIGN_OR_RETURN(v1::ListResponse page,
                        client->Call(client->jobs(), &v1::Jobs::Stub::List, request));
    for (v1::Job& job : *page.mutable_jobs()) jobs.push_back(std::move(job));
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty() &&
           (options.all || static_cast<int>(jobs.size()) < options.limit));
  if (!request.page_token().empty()) {
    session.talk() << "llctl: these are the newest " << jobs.size() << "; --all lists every job\n";
  }
  return jobs;
}

absl::StatusOr<int> RunList(const ListOptions& options, Session& session) {
  LL_ASSIGN_OR_RETURN(std::vector<v1::Job> jobs, FetchJobs(options, session));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    for (const v1::Job& job : jobs) output.stream() << job.job_id() << "\n";
  } else if (output.is_table()) {
    Table table({"JOB", "NAME", "STATE", "GPUS", "STEP", "LOSS", "TOKENS/S", "AGE", "REASON"});
    for (const v1::Job& job : jobs) {
      table.Add({job.job_id(), job.spec().name(), v1::JobState_Name(job.state()), SizeText(job),
                 StepText(job.progress()), LossText(job.progress()),
                 SpeedText(job.progress().tokens_per_second()),
                 AgeText(job.submitted(), session.now()), job.reason()});
    }
    output.PrintTable(table);
    if (jobs.empty()) session.talk() << "llctl: no jobs\n";
  } else {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const v1::Job& job : jobs) array.push_back(ProtoToJson(job));
    output.PrintValue(array);
  }
  return kExitSuccess;
}

}  // namespace

void AddListCommand(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* command = app.add_subcommand("list", "List jobs, newest first.");
  command->add_flag("--all", options->all, "Every job, not only the newest.");
  command->add_option("--limit", options->limit, "How many at most. Default: 100.")
      ->check(CLI::PositiveNumber.description(""))
      ->type_name("N");
  command
      ->add_option("--state", options->states,
                   "Only jobs in this state; may be given several times.")
      ->type_name("STATE")
      ->allow_extra_args(false);
  command
      ->add_option("--label", options->labels,
                   "Only jobs with this label, of any value without one; may be given several "
                   "times.")
      ->type_name("KEY[=VALUE]")
      ->allow_extra_args(false);
  command->callback([options, &chosen] {
    chosen = [options](Session& session) { return RunList(*options, session); };
  });
}

}  // namespace ll
