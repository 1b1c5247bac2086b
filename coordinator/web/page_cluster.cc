// Queues, workers, schedules.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "coordinator/web/chart.h"
#include "coordinator/web/pages.h"

namespace ll {
namespace {

void AddLimit(bool has, int64_t value, Html& out) {
  out.Raw("<td class=\"num\">");
  if (has) out.Number(value);
  out.Raw("</td>");
}

void AddVerdict(const v1::ScheduleRun& run, Html& out) {
  const std::string name = v1::ScheduleRun::Verdict_Name(run.verdict());
  out.Raw("<span class=\"verdict ")
      .Text(absl::AsciiStrToLower(name))
      .Raw("\">")
      .Text(name)
      .Raw("</span>");
}

std::string SlotText(const v1::Worker& worker) {
  if (worker.slots().empty()) return "none";
  const v1::Slot& first = worker.slots(0);
  return absl::StrCat(worker.slots_size(), " × ", first.kind(),
                      first.memory_bytes() > 0
                          ? absl::StrCat(", ", HumanBytes(first.memory_bytes()), " each")
                          : "");
}

}  // namespace

absl::StatusOr<Page> QueuesPage(const PageRequest& request) {
  LL_ASSIGN_OR_RETURN(const v1::ListQueuesResponse queues, request.api.Queues());
  v1::ListRequest list;
  list.set_page_size(200);
  for (const v1::JobState state : {v1::BLOCKED, v1::QUEUED, v1::RETRYING}) list.add_states(state);
  LL_ASSIGN_OR_RETURN(const v1::ListResponse waiting, request.api.List(list));
  Page page{.title = "Queues", .section = "queues", .refresh_seconds = 3};
  Html& out = page.body;
  out.Raw(
      "<h1>Queues</h1><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Queue</th><th "
      "scope=\"col\" class=\"num\">Weight</th>"
      "<th scope=\"col\" class=\"num\">Share</th><th scope=\"col\" class=\"num\">Running</th><th "
      "scope=\"col\" class=\"num\">Waiting</th>"
      "<th scope=\"col\" class=\"num\">GPUs held</th><th scope=\"col\" class=\"num\">Quota</th><th "
      "scope=\"col\" class=\"num\">Most GPUs</th>"
      "<th scope=\"col\" class=\"num\">Most jobs</th></tr></thead><tbody id=\"queues\" data-live>");
  for (const v1::Queue& queue : queues.queues()) {
    out.Raw("<tr id=\"queue-").Text(queue.name()).Raw("\"><td>").Text(queue.name());
    out.Raw("</td><td class=\"num\">")
        .Text(NumberText(queue.weight()))
        .Raw("</td><td class=\"num\">");
    out.Text(absl::StrFormat("%.3g", queue.share()))
        .Raw("</td><td class=\"num\">")
        .Number(queue.running_jobs());
    out.Raw("</td><td class=\"num\">")
        .Number(queue.waiting_jobs())
        .Raw("</td><td class=\"num\">")
        .Number(queue.held_gpus())
        .Raw("</td>");
    AddLimit(queue.has_quota_gpus(), queue.quota_gpus(), out);
    AddLimit(queue.has_max_gpus(), queue.max_gpus(), out);
    AddLimit(queue.has_max_jobs(), queue.max_jobs(), out);
    out.Raw("</tr>");
  }
  out.Raw(
      "</tbody></table></div><h2>Who waits, and for what</h2><div "
      "class=\"scroll\"><table><thead><tr><th scope=\"col\">Job</th>"
      "<th scope=\"col\">State</th><th scope=\"col\">Queue</th><th scope=\"col\" "
      "class=\"num\">GPUs</th><th scope=\"col\" class=\"num\">Priority</th>"
      "<th scope=\"col\">Submitted</th><th scope=\"col\">Why</th></tr></thead><tbody "
      "id=\"waiting\" data-live>");
  for (const v1::Job& job : waiting.jobs()) {
    out.Raw("<tr id=\"").Text(job.job_id()).Raw("\"><td>");
    AddJobLink(job.job_id(), job.spec().name(), out);
    out.Raw("</td><td>");
    AddState(job.state(), out);
    out.Raw("</td><td>")
        .Text(job.spec().queue().empty() ? "default" : job.spec().queue())
        .Raw("</td><td class=\"num\">");
    out.Number(std::max<int64_t>(1, job.spec().gpus()))
        .Raw("</td><td class=\"num\">")
        .Number(job.spec().priority());
    out.Raw("</td><td>");
    AddTime(job.submitted(), out);
    out.Raw("</td><td class=\"reason\">").Text(job.reason()).Raw("</td></tr>\n");
  }
  out.Raw("</tbody></table></div>");
  if (waiting.jobs().empty()) out.Raw("<p class=\"none\">No job waits.</p>");
  return page;
}

absl::StatusOr<Page> WorkersPage(const PageRequest& request) {
  LL_ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, request.api.Workers());
  Page page{.title = "Workers", .section = "workers", .refresh_seconds = 3};
  Html& out = page.body;
  out.Raw(
      "<h1>Workers</h1><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Worker</th><th "
      "scope=\"col\">Contact</th>"
      "<th scope=\"col\">Slots</th><th scope=\"col\">In use</th><th scope=\"col\" "
      "class=\"wide\">Host</th><th scope=\"col\" class=\"wide\">Rack</th>"
      "<th scope=\"col\" class=\"wide\">Version</th><th scope=\"col\">Last seen</th><th "
      "scope=\"col\">Out of service</th></tr></thead>"
      "<tbody id=\"workers\" data-live>");
  for (const v1::Worker& worker : workers.workers()) {
    out.Raw("<tr id=\"worker-")
        .Text(worker.worker())
        .Raw("\"><td>")
        .Text(worker.worker())
        .Raw("</td><td>");
    if (worker.connected()) {
      out.Raw("yes");
    } else {
      out.Raw("<span class=\"warn\">lost</span>");
    }
    out.Raw("</td><td>").Text(SlotText(worker)).Raw("</td><td>");
    for (const v1::SlotUse& use : worker.uses()) {
      AddJobLink(use.job_id(), absl::StrCat(use.slot(), ": rank ", use.rank()), out);
      out.Raw(" ");
    }
    out.Raw("</td><td class=\"wide\">")
        .Text(worker.host())
        .Raw("</td><td class=\"wide\">")
        .Text(worker.rack());
    out.Raw("</td><td class=\"wide\">")
        .Text(worker.version())
        .Raw("</td><td>")
        .Text(Ago(worker.last_seen(), request.now))
        .Raw("</td><td class=\"reason\">");
    if (worker.cordoned())
      out.Text(absl::StrCat(worker.draining() ? "draining" : "cordoned",
                            worker.cordon_reason().empty() ? "" : ": ", worker.cordon_reason()));
    out.Raw("</td></tr>\n");
  }
  out.Raw("</tbody></table></div>");
  if (workers.workers().empty()) out.Raw("<p class=\"none\">No worker has dialled in yet.</p>");
  return page;
}

absl::StatusOr<Page> SchedulesPage(const PageRequest& request) {
  LL_ASSIGN_OR_RETURN(const v1::ListSchedulesResponse schedules, request.api.Schedules());
  Page page{.title = "Schedules", .section = "schedules", .refresh_seconds = 10};
  Html& out = page.body;
  out.Raw(
      "<h1>Schedules</h1><div class=\"scroll\"><table><thead><tr><th "
      "scope=\"col\">Schedule</th><th scope=\"col\">Rule</th>"
      "<th scope=\"col\">Next</th><th scope=\"col\">Last verdict</th><th "
      "scope=\"col\">Because</th></tr></thead><tbody id=\"schedules\" data-live>");
  for (const v1::Schedule& schedule : schedules.schedules()) {
    out.Raw("<tr id=\"schedule-")
        .Text(schedule.name())
        .Raw("\"><td><a href=\"/schedules/")
        .UrlPart(schedule.name())
        .Raw("\">");
    out.Text(schedule.name())
        .Raw("</a></td><td>")
        .Text(absl::StrCat(schedule.cron(), " ", schedule.time_zone()))
        .Raw("</td><td>");
    if (schedule.paused()) {
      out.Text(absl::StrCat("paused by ", schedule.paused_by()));
    } else if (!schedule.problem().empty()) {
      out.Raw("<span class=\"warn\">").Text(schedule.problem()).Raw("</span>");
    } else {
      AddTime(schedule.next_fire(), out);
    }
    out.Raw("</td><td>");
    if (schedule.has_last_run()) AddVerdict(schedule.last_run(), out);
    out.Raw("</td><td class=\"reason\">")
        .Text(schedule.last_run().verdict_reason())
        .Raw("</td></tr>\n");
  }
  out.Raw("</tbody></table></div>");
  if (schedules.schedules().empty())
    out.Raw(
        "<p class=\"none\">No schedules. <code>llctl schedule create --help</code> shows how to "
        "make one.</p>");
  return page;
}

absl::StatusOr<Page> SchedulePage(const PageRequest& request, const std::string& name) {
  LL_ASSIGN_OR_RETURN(const v1::Schedule schedule, request.api.Schedule(name));
  Page page{.title = name, .section = "schedules", .refresh_seconds = 10};
  Html& out = page.body;
  out.Raw("<h1>")
      .Text(name)
      .Raw("</h1><p class=\"lead\">")
      .Text(absl::StrCat(schedule.cron(), " ", schedule.time_zone()));
  out.Raw("; next: ");
  if (schedule.paused()) {
    out.Raw("paused");
  } else {
    AddTime(schedule.next_fire(), out);
  }
  out.Raw("</p>");
  LineChart loss{"Final loss", "", "run", {}}, perplexity{"Perplexity", "", "run", {}},
      speed{"Throughput", "tokens/s", "run", {}}, memory{"Peak memory", "GB", "run", {}};
  for (auto run = schedule.runs().rbegin(); run != schedule.runs().rend(); ++run) {
    const auto x = static_cast<double>(run->number());
    if (run->has_final_loss()) loss.points.emplace_back(x, run->final_loss());
    if (run->has_perplexity()) perplexity.points.emplace_back(x, run->perplexity());
    if (run->has_tokens_per_second()) speed.points.emplace_back(x, run->tokens_per_second());
    if (run->has_peak_bytes())
      memory.points.emplace_back(x, static_cast<double>(run->peak_bytes()) / 1e9);
  }
  out.Raw("<section id=\"trends\" data-live aria-label=\"Trends\"><div class=\"charts\">");
  for (const LineChart* chart : {&loss, &perplexity, &speed, &memory}) AddChart(*chart, out);
  out.Raw(
      "</div></section><h2>Runs</h2><div class=\"scroll\"><table><thead><tr><th scope=\"col\" "
      "class=\"num\">Run</th><th scope=\"col\">Time</th>"
      "<th scope=\"col\">Job</th><th scope=\"col\">Verdict</th><th scope=\"col\" "
      "class=\"num\">Loss</th><th scope=\"col\" class=\"num\">Perplexity</th>"
      "<th scope=\"col\" class=\"num wide\">Tokens/s</th><th scope=\"col\" class=\"num "
      "wide\">Memory</th><th scope=\"col\">Because</th></tr></thead>"
      "<tbody id=\"runs\" data-live>");
  for (const v1::ScheduleRun& run : schedule.runs()) {
    out.Raw("<tr id=\"run-")
        .Number(run.number())
        .Raw("\"><td class=\"num\">")
        .Number(run.number())
        .Raw("</td><td>");
    AddTime(run.fire_time(), out);
    out.Raw("</td><td>");
    if (run.job_id().empty()) {
      out.Raw("left out");
      if (run.fires() > 1) out.Raw(" × ").Number(run.fires());
    } else {
      AddJobLink(run.job_id(), "", out);
      out.Raw(" ");
      if (run.state() != v1::JOB_STATE_UNSPECIFIED) AddState(run.state(), out);
    }
    out.Raw("</td><td>");
    if (!run.job_id().empty()) AddVerdict(run, out);
    out.Raw("</td><td class=\"num\">")
        .Text(run.has_final_loss() ? absl::StrFormat("%.5g", run.final_loss()) : "");
    out.Raw("</td><td class=\"num\">")
        .Text(run.has_perplexity() ? absl::StrFormat("%.5g", run.perplexity()) : "");
    out.Raw("</td><td class=\"num wide\">")
        .Text(run.has_tokens_per_second()
                  ? HumanCount(static_cast<int64_t>(run.tokens_per_second()))
                  : "");
    out.Raw("</td><td class=\"num wide\">")
        .Text(run.has_peak_bytes() ? HumanBytes(run.peak_bytes()) : "")
        .Raw("</td><td class=\"reason\">");
    out.Text(run.reason());
    if (!run.reason().empty() && !run.verdict_reason().empty()) out.Raw("; ");
    out.Text(run.verdict_reason());
    if (run.has_diverging_step()) out.Raw("; first diverging step ").Number(run.diverging_step());
    out.Raw("</td></tr>\n");
  }
  out.Raw("</tbody></table></div>");
  return page;
}

}  // namespace ll
