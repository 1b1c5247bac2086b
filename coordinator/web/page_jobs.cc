// The list of jobs.
#include <algorithm>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "coordinator/web/pages.h"

namespace ll {
namespace {

constexpr int kDefaultRows = 100, kMostRows = 1000;

// What the form offers besides all.
const std::vector<std::pair<std::string, std::vector<v1::JobState>>>& Groups() {
  static const auto* groups = new std::vector<std::pair<std::string, std::vector<v1::JobState>>>{
      {"active",
       {v1::STARTING, v1::RUNNING, v1::FINISHING, v1::PAUSING, v1::PREEMPTING, v1::RETRYING,
        v1::CANCELLING}},
      {"waiting", {v1::BLOCKED, v1::QUEUED, v1::PAUSED}},
      {"succeeded", {v1::SUCCEEDED}},
      {"failed", {v1::FAILED}},
      {"cancelled", {v1::CANCELLED}}};
  return *groups;
}

absl::StatusOr<v1::ListRequest> RequestOf(const PageRequest& request) {
  v1::ListRequest list;
  int rows = kDefaultRows;
  if (const std::string n = request.Value("n");
      !n.empty() && (!absl::SimpleAtoi(n, &rows) || rows < 1 || rows > kMostRows))
    return MakeFieldError({"n", "1 to 1000", n});
  list.set_page_size(rows);
  list.set_page_token(request.Value("from"));
  const std::string group = request.Value("state");
  for (const auto& [name, states] : Groups()) {
    if (name == group) list.mutable_states()->Add(states.begin(), states.end());
  }
  if (!group.empty() && group != "all" && list.states().empty())
    return MakeFieldError({"state", "all, active, waiting, succeeded, failed or cancelled", group});
  for (const absl::string_view label :
       absl::StrSplit(request.Value("label"), ',', absl::SkipWhitespace())) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(label, absl::MaxSplits('=', 1));
    (*list.mutable_labels())[parts.first] = parts.second;
  }
  return list;
}

void AddForm(const PageRequest& request, Html& out) {
  out.Raw(
      "<form class=\"filter\" method=\"get\" action=\"/\" role=\"search\"><label>State <select "
      "name=\"state\">");
  std::vector<std::string> names = {"all"};
  for (const auto& [name, states] : Groups()) names.push_back(name);
  for (const std::string& name : names) {
    out.Raw("<option");
    if (request.Value("state") == name) out.Raw(" selected");
    out.Raw(">").Text(name).Raw("</option>");
  }
  out.Raw(
      "</select></label><label>Labels <input name=\"label\" placeholder=\"team=nlp, stage\" "
      "value=\"");
  out.Text(request.Value("label")).Raw("\"></label><label>Rows <select name=\"n\">");
  const std::string rows = request.Value("n").empty() ? "100" : request.Value("n");
  for (const char* n : {"25", "100", "1000"}) {
    out.Raw("<option");
    if (rows == n) out.Raw(" selected");
    out.Raw(">").Text(n).Raw("</option>");
  }
  out.Raw("</select></label><button>Show</button></form>");
}

void AddProgress(const v1::Job& job, Html& out) {
  const v1::Progress& progress = job.progress();
  if (progress.step() == 0) return;
  out.Text(HumanCount(progress.step()));
  if (progress.max_steps() == 0) return;
  out.Raw("/")
      .Text(HumanCount(progress.max_steps()))
      .Raw("<progress max=\"")
      .Number(progress.max_steps());
  out.Raw("\" value=\"").Number(progress.step()).Raw("\"></progress>");
}

void AddRow(const v1::Job& job, Html& out) {
  out.Raw("<tr id=\"").Text(job.job_id()).Raw("\"><td>");
  AddJobLink(job.job_id(), job.spec().name(), out);
  out.Raw("<small>").Text(job.spec().name().empty() ? "" : job.job_id()).Raw("</small></td><td>");
  AddState(job.state(), out);
  if (job.headless())
    out.Raw(" <span class=\"warn\" title=\"a worker is out of contact\">headless</span>");
  out.Raw("</td><td class=\"num\">");
  AddProgress(job, out);
  out.Raw("</td><td class=\"num\">").Text(NumberText(job.progress().loss()));
  out.Raw("</td><td class=\"num wide\">");
  if (job.progress().tokens_per_second() > 0)
    out.Text(HumanCount(static_cast<int64_t>(job.progress().tokens_per_second())));
  out.Raw("</td><td class=\"wide\">").Text(job.spec().kind().empty() ? "train" : job.spec().kind());
  out.Raw("</td><td class=\"num wide\">").Number(std::max<int64_t>(1, job.spec().gpus()));
  out.Raw("</td><td class=\"wide\">")
      .Text(job.spec().queue().empty() ? "default" : job.spec().queue());
  out.Raw("</td><td class=\"wide\">").Text(job.user());
  out.Raw("</td><td>");
  AddTime(job.submitted(), out);
  out.Raw("</td><td class=\"reason\">").Text(job.reason()).Raw("</td></tr>\n");
}

}  // namespace

absl::StatusOr<Page> JobListPage(const PageRequest& request) {
  LL_ASSIGN_OR_RETURN(const v1::ListRequest list, RequestOf(request));
  LL_ASSIGN_OR_RETURN(const v1::ListResponse jobs, request.api.List(list));
  Page page{.title = "Jobs", .section = "jobs", .refresh_seconds = 3};
  Html& out = page.body;
  out.Raw("<h1>Jobs</h1>");
  AddForm(request, out);
  out.Raw(
      "<div class=\"scroll\"><table class=\"jobs\"><thead><tr><th scope=\"col\">Job</th><th "
      "scope=\"col\">State</th>"
      "<th scope=\"col\" class=\"num\">Step</th><th scope=\"col\" class=\"num\">Loss</th>"
      "<th scope=\"col\" class=\"num wide\">Tokens/s</th><th scope=\"col\" class=\"wide\">Kind</th>"
      "<th scope=\"col\" class=\"num wide\">GPUs</th><th scope=\"col\" class=\"wide\">Queue</th>"
      "<th scope=\"col\" class=\"wide\">User</th><th scope=\"col\">Submitted</th>"
      "<th scope=\"col\">Why</th></tr></thead><tbody id=\"jobs\" data-live>");
  for (const v1::Job& job : jobs.jobs()) AddRow(job, out);
  out.Raw("</tbody></table></div>");
  if (jobs.jobs().empty())
    out.Raw(
        "<p class=\"none\">No such jobs. <code>llctl submit --help</code> shows how to make "
        "one.</p>");
  if (!jobs.next_page_token().empty()) {
    out.Raw("<p><a rel=\"next\" href=\"/?from=")
        .UrlPart(jobs.next_page_token())
        .Raw("&amp;n=")
        .Number(list.page_size());
    out.Raw("&amp;state=")
        .UrlPart(request.Value("state"))
        .Raw("&amp;label=")
        .UrlPart(request.Value("label"));
    out.Raw("\">Older jobs</a></p>");
  }
  return page;
}

}  // namespace ll
