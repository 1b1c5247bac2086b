#include "llctl/residuals.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

using Errors = std::vector<double>;

std::string Percent(double ratio) { return absl::StrFormat("%+.1f %%", 100 * ratio); }

// "8.2s / 7.9s +3.8 %": actual, forecast, error.
std::string Beside(const std::string& actual, const std::string& forecast, double error) {
  return absl::StrCat(actual, " / ", forecast, " ", Percent(error));
}

std::string Median(Errors errors) {
  if (errors.empty()) return "not known";
  std::sort(errors.begin(), errors.end());
  const size_t n = errors.size();
  const double median = (errors[(n - 1) / 2] + errors[n / 2]) / 2;
  return absl::StrCat(Percent(median), " of ", n, " (", Percent(errors.front()), " to ",
                      Percent(errors.back()), ")");
}

nlohmann::ordered_json ResidualJson(const v1::Job& job) {
  const v1::Forecast& f = job.forecast();
  nlohmann::ordered_json out = {{"job_id", job.job_id()}, {"device", f.plan().device()}};
  const auto add = [&out](const char* key, bool has, double value) {
    if (has) out[key] = value;
  };
  add("step_error_ratio", f.has_step_error_ratio(), f.step_error_ratio());
  add("duration_error_ratio", f.has_duration_error_ratio(), f.duration_error_ratio());
  add("memory_error_ratio", f.has_memory_error_ratio(), f.memory_error_ratio());
  return out;
}

}  // namespace

absl::StatusOr<std::vector<v1::Job>> FetchForecastJobs(int limit, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  std::vector<v1::Job> jobs;
  v1::ListRequest list;
  list.add_states(v1::SUCCEEDED);
  do {
    LL_ASSIGN_OR_RETURN(const v1::ListResponse page,
                        client->Call(client->jobs(), &v1::Jobs::Stub::List, list));
    for (const v1::Job& summary : page.jobs()) {
      if (summary.spec().kind() != "train" || static_cast<int>(jobs.size()) == limit) continue;
      v1::GetRequest get;
      get.set_job_id(summary.job_id());
      LL_ASSIGN_OR_RETURN(v1::Job job, client->Call(client->jobs(), &v1::Jobs::Stub::Get, get));
      if (job.forecast().has_plan()) jobs.push_back(std::move(job));
    }
    list.set_page_token(page.next_page_token());
  } while (!list.page_token().empty() && static_cast<int>(jobs.size()) < limit);
  return jobs;
}

void PrintResiduals(const std::vector<v1::Job>& jobs, Session& session) {
  Output& output = session.output();
  if (!output.is_table()) {
    nlohmann::ordered_json array = nlohmann::ordered_json::array();
    for (const v1::Job& job : jobs) array.push_back(ResidualJson(job));
    return output.PrintValue(array);
  }
  if (jobs.empty()) {
    session.talk() << "llctl: no training that was forecast has succeeded yet\n";
    return;
  }
  Table table({"JOB", "DEVICE", "STEP", "TIME", "MEMORY"});
  Errors steps, times, memory;
  for (const v1::Job& job : jobs) {
    const v1::Forecast& f = job.forecast();
    const auto time = [](double seconds) { return HumanDuration(absl::Seconds(seconds)); };
    std::vector<std::string> cells(3);
    if (f.has_step_error_ratio()) {
      steps.push_back(f.step_error_ratio());
      cells[0] = Beside(time(f.measured_step_seconds()), time(f.plan().step_seconds()),
                        f.step_error_ratio());
    }
    if (f.has_duration_error_ratio()) {
      times.push_back(f.duration_error_ratio());
      cells[1] =
          Beside(time(f.actual_seconds()), time(f.duration_seconds()), f.duration_error_ratio());
    }
    if (f.has_memory_error_ratio()) {
      memory.push_back(f.memory_error_ratio());
      cells[2] = Beside(HumanBytes(job.progress().peak_bytes()), HumanBytes(f.bytes_per_rank()),
                        f.memory_error_ratio());
    }
    table.Add({job.job_id(), f.plan().device(), cells[0], cells[1], cells[2]});
  }
  output.PrintTable(table);
  output.stream() << "\n";
  output.PrintFields({{"step, median", Median(std::move(steps))},
                      {"time, median", Median(std::move(times))},
                      {"memory, median", Median(std::move(memory))}});
}

}  // namespace ll
