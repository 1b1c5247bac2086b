// One job, and its logs.
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/status_macros.h"
#include "coordinator/web/pages.h"
#include "model/report/eval_report.h"

namespace ll {
namespace {

constexpr size_t kLogBytes = 64 << 10, kTailBytes = 6 << 10;
constexpr int64_t kMostRanksShown = 64;

bool Ended(v1::JobState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED || state == v1::CANCELLED;
}

std::string Seconds(double seconds) {
  if (seconds <= 0) return "";
  return seconds < 10 ? absl::StrFormat("%.3g s", seconds) : HumanDuration(absl::Seconds(seconds));
}
std::string Bytes(int64_t bytes) { return bytes <= 0 ? "" : HumanBytes(bytes); }
std::string Rounded(double value) { return value <= 0 ? "" : absl::StrFormat("%.3g", value); }
// "peak_bytes" of a result, of which all is text.
std::string ResultText(const std::string& name, const std::string& value) {
  int64_t bytes;
  return absl::EndsWith(name, "_bytes") && absl::SimpleAtoi(value, &bytes) ? HumanBytes(bytes)
                                                                           : value;
}
std::string Percent(double ratio) { return absl::StrFormat("%+.1f %%", 100 * ratio); }

void AddHead(const v1::Job& job, const PageRequest& request, Html& out) {
  out.Raw("<h1 id=\"head\" data-live>")
      .Text(job.spec().name().empty() ? job.job_id() : job.spec().name())
      .Raw(" ");
  AddState(job.state(), out);
  out.Raw("</h1><section id=\"why\" data-live aria-label=\"Why\"><p class=\"lead\">");
  const auto why = request.api.Why(job.job_id());
  out.Text(why.ok() ? why->sentence() : job.reason()).Raw("</p>");
  if (job.headless())
    out.Raw("<p class=\"warn\">A worker of the gang is out of contact; its ranks train on.</p>");
  out.Raw("</section>");
}

void AddFacts(const v1::Job& job, absl::Time now, Html& out) {
  const v1::Progress& progress = job.progress();
  out.Raw("<dl id=\"facts\" class=\"facts\" data-live>");
  if (progress.step() > 0) {
    AddFact("Step",
            progress.max_steps() > 0 ? absl::StrCat(HumanCount(progress.step()), " of ",
                                                    HumanCount(progress.max_steps()))
                                     : HumanCount(progress.step()),
            out);
    AddFact("Loss", absl::StrFormat("%.5g", progress.loss()), out);
    AddFact("Tokens per second", HumanCount(static_cast<int64_t>(progress.tokens_per_second())),
            out);
    AddFact("Tokens", HumanCount(progress.tokens()), out);
    AddFact("Seconds a step", absl::StrFormat("%.3g", progress.step_seconds()), out);
    AddFact("Peak memory", Bytes(progress.peak_bytes()), out);
    if (progress.has_mfu()) AddFact("MFU", absl::StrFormat("%.1f %%", 100 * progress.mfu()), out);
  }
  AddFact("Job", job.job_id(), out);
  AddFact("Kind", job.resolved_spec().kind(), out);
  AddFact("Model", job.resolved_spec().model(), out);
  AddFact("Method", job.resolved_spec().method(), out);
  if (job.resolved_spec().context_length() > 0)
    AddFact("Context", absl::StrCat(HumanCount(job.resolved_spec().context_length()), " tokens"),
            out);
  AddFact("GPUs", absl::StrCat(std::max<int64_t>(1, job.resolved_spec().gpus())), out);
  AddFact("Queue", job.resolved_spec().queue(), out);
  AddFact("User", job.user(), out);
  AddFact("Attempt", job.epoch() > 0 ? absl::StrCat(job.epoch()) : "", out);
  AddFact("Submitted", Ago(job.submitted(), now), out);
  AddFact("Started", Ago(job.started(), now), out);
  AddFact("Ended", Ago(job.finished(), now), out);
  if (job.failure_class() != v1::FAILURE_CLASS_UNSPECIFIED)
    AddFact("Failure class", v1::FailureClass_Name(job.failure_class()), out);
  for (const auto& [label, value] : job.resolved_spec().labels())
    AddFact("Label", absl::StrCat(label, "=", value), out);
  out.Raw("</dl>");
}

void AddForecastRow(Markup name, const std::string& forecast, const std::string& actual,
                    const std::string& error, Html& out) {
  if (forecast.empty() && actual.empty()) return;
  out.Raw("<tr><th scope=\"row\">").Raw(name).Raw("</th><td class=\"num\">").Text(forecast);
  out.Raw("</td><td class=\"num\">")
      .Text(actual)
      .Raw("</td><td class=\"num\">")
      .Text(error)
      .Raw("</td></tr>");
}

std::string Money(double amount, const std::string& currency) {
  return amount <= 0 ? "" : absl::StrFormat("%.2f %s", amount, currency);
}

void AddForecast(const v1::Job& job, Html& out) {
  const v1::Forecast& f = job.forecast();
  if (f.bytes_per_rank() == 0 && f.duration_seconds() == 0)
    return;  // of this kind nothing is forecast
  out.Raw("<section id=\"forecast\" data-live><h2>Forecast and actual</h2><p>")
      .Text(f.explanation());
  out.Raw(
      "</p><div class=\"scroll\"><table><thead><tr><td></td><th scope=\"col\" "
      "class=\"num\">Forecast</th>"
      "<th scope=\"col\" class=\"num\">Actual</th><th scope=\"col\" "
      "class=\"num\">Error</th></tr></thead><tbody>");
  AddForecastRow("Memory a rank", Bytes(f.bytes_per_rank()), Bytes(job.progress().peak_bytes()),
                 f.has_memory_error_ratio() ? Percent(f.memory_error_ratio()) : "", out);
  AddForecastRow("A step", Seconds(f.plan().step_seconds()), Seconds(f.measured_step_seconds()),
                 f.has_step_error_ratio() ? Percent(f.step_error_ratio()) : "", out);
  AddForecastRow("Training", Seconds(f.duration_seconds()), Seconds(f.actual_seconds()),
                 f.has_duration_error_ratio() ? Percent(f.duration_error_ratio()) : "", out);
  AddForecastRow("GPU-hours", Rounded(f.gpu_hours()), Rounded(f.actual_gpu_hours()), "", out);
  AddForecastRow("Energy, kWh", Rounded(f.energy_joules() / 3.6e6),
                 Rounded(f.actual_energy_joules() / 3.6e6), "", out);
  AddForecastRow("Cost", Money(f.cost(), f.currency()), Money(f.actual_cost(), f.currency()), "",
                 out);
  out.Raw("</tbody></table></div>");
  const auto between = [&out](Markup what, const auto& low, const auto& high) {
    if (low.seconds() == 0) return;
    out.Raw("<p>").Raw(what);
    AddTime(low, out);
    out.Raw(" and ");
    AddTime(high, out);
    out.Raw("</p>");
  };
  between("Starts between ", f.start_low(), f.start_high());
  if (!Ended(job.state())) between("Ends between ", f.finish_low(), f.finish_high());
  out.Raw("</section>");
}

// Where a rank is, and what its GPU does.
struct RankPlaced {
  std::string slot, kind, contact;
  std::optional<v1::SlotLoad> load;
};

RankPlaced PlaceOf(const v1::Job& job, int rank, const v1::ListWorkersResponse& workers) {
  RankPlaced place;
  for (const v1::Worker& worker : workers.workers()) {
    if (worker.worker() != job.workers(rank)) continue;
    place.contact = worker.connected() ? "yes" : "lost";
    for (const v1::SlotUse& use : worker.uses()) {
      if (use.job_id() != job.job_id() || use.rank() != rank || use.epoch() != job.epoch())
        continue;
      place.slot = absl::StrCat(use.slot());
      for (const v1::Slot& of : worker.slots()) {
        if (of.index() == use.slot()) place.kind = of.kind();
      }
      for (const v1::SlotLoad& load : worker.loads()) {
        if (load.slot() == use.slot()) place.load = load;
      }
    }
  }
  return place;
}

void AddLoad(const std::optional<v1::SlotLoad>& load, Html& out) {
  const auto cell = [&out](const std::string& text) {
    out.Raw("<td class=\"num\">").Text(text).Raw("</td>");
  };
  cell(load && load->has_utilization() ? absl::StrFormat("%.0f %%", 100 * load->utilization())
                                       : "");
  cell(load ? Bytes(load->memory_used_bytes()) : "");
  cell(load && load->power_watts() > 0 ? absl::StrFormat("%.0f W", load->power_watts()) : "");
  cell(load && load->temperature_celsius() > 0
           ? absl::StrFormat("%.0f °C", load->temperature_celsius())
           : "");
}

void AddRanks(const v1::Job& job, const PageRequest& request, Html& out) {
  if (job.workers().empty()) return;
  const auto workers = request.api.Workers();
  std::vector<RankPlaced> places;
  for (int rank = 0; rank < job.workers_size() && rank < kMostRanksShown; ++rank)
    places.push_back(workers.ok() ? PlaceOf(job, rank, *workers) : RankPlaced());
  const bool gpus = std::any_of(places.begin(), places.end(),
                                [](const RankPlaced& place) { return place.load.has_value(); });
  out.Raw(
      "<section id=\"ranks\" data-live><h2>Ranks</h2><div class=\"scroll\"><table><thead><tr>"
      "<th scope=\"col\" class=\"num\">Rank</th><th scope=\"col\">Worker</th><th "
      "scope=\"col\">Slot</th>"
      "<th scope=\"col\">Kind</th><th scope=\"col\">Contact</th>");
  if (gpus) {
    out.Raw(
        "<th scope=\"col\" class=\"num\">GPU use</th><th scope=\"col\" class=\"num\">GPU "
        "memory</th>"
        "<th scope=\"col\" class=\"num\">Power</th><th scope=\"col\" "
        "class=\"num\">Temperature</th>");
  }
  out.Raw("<th scope=\"col\">Log</th></tr></thead><tbody>");
  for (int rank = 0; rank < static_cast<int>(places.size()); ++rank) {
    const RankPlaced& place = places[static_cast<size_t>(rank)];
    out.Raw("<tr><td class=\"num\">")
        .Number(rank)
        .Raw("</td><td>")
        .Text(job.workers(rank))
        .Raw("</td><td>")
        .Text(place.slot)
        .Raw("</td><td>")
        .Text(place.kind)
        .Raw("</td><td>")
        .Text(place.contact)
        .Raw("</td>");
    if (gpus) AddLoad(place.load, out);
    out.Raw("<td><a href=\"/jobs/")
        .UrlPart(job.job_id())
        .Raw("/log?rank=")
        .Number(rank)
        .Raw("\">log</a></td></tr>");
  }
  out.Raw("</tbody></table></div>");
  if (job.workers_size() > kMostRanksShown)
    out.Raw("<p>… and ").Number(job.workers_size() - kMostRanksShown).Raw(" more ranks</p>");
  out.Raw("</section>");
}

void AddResult(const v1::Job& job, Html& out) {
  if (job.result().fields().empty()) return;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(job.result(), &text).ok()) return;
  const auto json = nlohmann::ordered_json::parse(text, nullptr, /*allow_exceptions=*/false);
  const EvalReport report = ReportOf(json);
  out.Raw("<section id=\"result\" data-live><h2>Result</h2>");
  if (const auto svg = PasskeySvg(json); svg.ok())
    out.Raw("<div class=\"scroll heat\">").Svg(*svg).Raw("</div>");
  out.Raw("<dl class=\"facts\">");
  for (const auto& [name, value] : report.fields)
    out.Raw("<div><dt>")
        .Text(name)
        .Raw("</dt><dd>")
        .Text(ResultText(name, value))
        .Raw("</dd></div>");
  out.Raw("</dl>");
  for (const ReportTable& table : report.tables) {
    out.Raw("<h3>").Text(table.title).Raw("</h3><div class=\"scroll\"><table><thead><tr>");
    for (const std::string& name : table.header)
      out.Raw("<th scope=\"col\">").Text(name).Raw("</th>");
    out.Raw("</tr></thead><tbody>");
    for (const auto& row : table.rows) {
      out.Raw("<tr>");
      for (const std::string& cell : row) out.Raw("<td>").Text(cell).Raw("</td>");
      out.Raw("</tr>");
    }
    out.Raw("</tbody></table></div>");
  }
  out.Raw("</section>");
}

void AddCheckpoints(const v1::Job& job, const PageRequest& request, Html& out) {
  const auto checkpoints = request.api.Checkpoints(job.job_id());
  if (!checkpoints.ok() || checkpoints->checkpoints().empty()) return;
  out.Raw(
      "<section id=\"checkpoints\" data-live><h2>Checkpoints</h2><div "
      "class=\"scroll\"><table><thead><tr>"
      "<th scope=\"col\" class=\"num\">Step</th><th scope=\"col\" class=\"num\">Loss</th><th "
      "scope=\"col\">Written</th>"
      "<th scope=\"col\" class=\"num\">Size</th><th scope=\"col\">Kept as</th><th "
      "scope=\"col\">Where</th></tr></thead><tbody>");
  for (const v1::CheckpointRecord& c : checkpoints->checkpoints()) {
    out.Raw("<tr><td class=\"num\">").Number(c.step()).Raw("</td><td class=\"num\">");
    out.Text(c.has_loss() ? absl::StrFormat("%.5g", c.loss()) : "").Raw("</td><td>");
    AddTime(c.written(), out);
    out.Raw("</td><td class=\"num\">")
        .Text(Bytes(c.size_bytes()))
        .Raw("</td><td>")
        .Text(c.kept())
        .Raw("</td><td class=\"path\">");
    out.Text(c.removed() || c.path().empty() ? c.copy_uri() : c.path()).Raw("</td></tr>");
  }
  out.Raw("</tbody></table></div></section>");
}

void AddHistory(const v1::Job& job, Html& out) {
  if (job.history().empty()) return;
  out.Raw("<section id=\"history\" data-live><h2>History</h2><ol class=\"history\">");
  for (auto t = job.history().rbegin(); t != job.history().rend(); ++t) {
    out.Raw("<li>");
    AddTime(t->time(), out);
    out.Raw(" ");
    AddState(t->state(), out);
    out.Raw(" ").Text(t->reason()).Raw("</li>");
  }
  out.Raw("</ol></section>");
}

void AddTail(const v1::Job& job, const PageRequest& request, Html& out) {
  if (job.epoch() == 0) return;
  v1::LogsRequest logs;
  logs.set_job_id(job.job_id());
  logs.set_offset(-static_cast<int64_t>(kTailBytes));
  const auto tail = request.api.ReadLog(logs, kTailBytes);
  if (!tail.ok()) return;
  out.Raw("<section id=\"tail\" data-live><h2>Log of rank 0</h2><pre class=\"log\">")
      .Text(tail->text);
  out.Raw("</pre><p><a href=\"/jobs/")
      .UrlPart(job.job_id())
      .Raw("/log\">All of it</a></p></section>");
}

void AddSpec(const v1::Job& job, Html& out) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string text;
  if (!google::protobuf::util::MessageToJsonString(job.resolved_spec(), &text, options).ok())
    return;
  out.Raw("<details><summary>Specification</summary><pre>").Text(text).Raw("</pre></details>");
}

}  // namespace

absl::StatusOr<Page> JobPage(const PageRequest& request, const std::string& id, JobCharts& charts) {
  LL_ASSIGN_OR_RETURN(const v1::Job job, request.api.Get(id, /*steps=*/false));
  Page page{.title = job.spec().name().empty() ? id : job.spec().name(),
            .section = "jobs",
            .refresh_seconds = Ended(job.state()) ? 0 : 3};
  Html& out = page.body;
  AddHead(job, request, out);
  AddFacts(job, request.now, out);
  if (job.progress().step() > 0) {
    if (auto drawn = charts.Of(job, request.api); drawn.ok()) {
      out.Raw("<section id=\"curves\" data-live aria-label=\"Curves\"><div class=\"charts\">");
      out.Add(*drawn).Raw("</div></section>");
    }
  }
  AddResult(job, out);
  AddForecast(job, out);
  AddRanks(job, request, out);
  AddCheckpoints(job, request, out);
  AddHistory(job, out);
  AddTail(job, request, out);
  AddSpec(job, out);
  return page;
}

absl::StatusOr<Page> LogPage(const PageRequest& request, const std::string& id) {
  int rank = 0;
  int64_t offset = -static_cast<int64_t>(kLogBytes), epoch = 0;
  const std::string rank_text = request.Value("rank"), offset_text = request.Value("offset"),
                    epoch_text = request.Value("epoch");
  if (!rank_text.empty() && (!absl::SimpleAtoi(rank_text, &rank) || rank < 0))
    return MakeFieldError({"rank", "a number", rank_text});
  if (!offset_text.empty() && !absl::SimpleAtoi(offset_text, &offset))
    return MakeFieldError({"offset", "a number of bytes", offset_text});
  if (!epoch_text.empty() && (!absl::SimpleAtoi(epoch_text, &epoch) || epoch < 0))
    return MakeFieldError({"epoch", "an attempt's number", epoch_text});
  v1::LogsRequest logs;
  logs.set_job_id(id);
  logs.set_rank(rank);
  logs.set_offset(offset);
  logs.set_epoch(epoch);
  LL_ASSIGN_OR_RETURN(const ApiClient::As::Log log, request.api.ReadLog(logs, kLogBytes));
  Page page{.title = absl::StrCat("Log of ", id), .section = "jobs"};
  Html& out = page.body;
  out.Raw("<h1>Log of ");
  AddJobLink(id, "", out);
  out.Raw(", rank ").Number(rank).Raw("</h1><p>Bytes ").Text(HumanCount(log.offset)).Raw(" to ");
  out.Text(HumanCount(log.offset + static_cast<int64_t>(log.text.size()))).Raw("</p>");
  const auto link = [&](Markup name, int64_t from) {
    out.Raw("<a href=\"/jobs/")
        .UrlPart(id)
        .Raw("/log?rank=")
        .Number(rank)
        .Raw("&amp;epoch=")
        .Number(epoch);
    out.Raw("&amp;offset=").Number(from).Raw("\">").Raw(name).Raw("</a> ");
  };
  out.Raw("<p>");
  if (log.offset > 0)
    link("Earlier", std::max<int64_t>(0, log.offset - static_cast<int64_t>(kLogBytes)));
  if (log.text.size() >= kLogBytes)
    link("Later", log.offset + static_cast<int64_t>(log.text.size()));
  link("Newest", -static_cast<int64_t>(kLogBytes));
  out.Raw("</p><pre class=\"log\">").Text(log.text).Raw("</pre>");
  return page;
}

}  // namespace ll
