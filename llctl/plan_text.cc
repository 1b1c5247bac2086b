#include "llctl/plan_text.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/counted.h"
#include "base/format.h"
#include "llctl/proto_json.h"
#include "model/plan/devices.h"

namespace ll {
namespace {

constexpr double kJoulesPerKwh = 3.6e6;

std::string Seconds(double seconds) {
  if (seconds <= 0) return "";
  if (seconds < 0.1) return absl::StrFormat("%.1f ms", seconds * 1e3);
  return HumanDuration(absl::Seconds(seconds));
}

std::string Bytes(int64_t bytes) { return bytes > 0 ? HumanBytes(bytes) : ""; }

// A table's lines: a name and how a plan shows it.
struct Line {
  const char* name;
  std::string (*text)(const v1::PlannedRun&);
};

using Run = v1::PlannedRun;
constexpr Line kLines[] = {
    {"device", [](const Run& r) { return r.device(); }},
    {"plan", [](const Run& r) { return RunText(r); }},
    {"memory a rank", [](const Run& r) { return Bytes(r.bytes_per_rank()); }},
    {"  of", [](const Run& r) { return Bytes(r.available_bytes_per_slot()); }},
    {"  weights", [](const Run& r) { return Bytes(r.memory().weights()); }},
    {"  optimizer", [](const Run& r) { return Bytes(r.memory().trained()); }},
    {"  activations", [](const Run& r) { return Bytes(r.memory().activations()); }},
    {"  one layer", [](const Run& r) { return Bytes(r.memory().workspace()); }},
    {"  logits", [](const Run& r) { return Bytes(r.memory().head()); }},
    {"  communication", [](const Run& r) { return Bytes(r.memory().communication()); }},
    {"  checkpoint copy", [](const Run& r) { return Bytes(r.memory().snapshot()); }},
    {"  runtime", [](const Run& r) { return Bytes(r.memory().runtime()); }},
    {"  measured excess", [](const Run& r) { return Bytes(r.memory().correction()); }},
    {"step", [](const Run& r) { return Seconds(r.step_seconds()); }},
    {"  products", [](const Run& r) { return Seconds(r.step().gemm()); }},
    {"  attention", [](const Run& r) { return Seconds(r.step().attention()); }},
    {"  recompute", [](const Run& r) { return Seconds(r.step().recompute()); }},
    {"  memory traffic", [](const Run& r) { return Seconds(r.step().memory_traffic()); }},
    {"  communication", [](const Run& r) { return Seconds(r.step().communication()); }},
    {"  optimizer", [](const Run& r) { return Seconds(r.step().optimizer()); }},
    {"  offload", [](const Run& r) { return Seconds(r.step().offload()); }},
};

std::string TimeText(const v1::Forecast& f) {
  if (f.duration_seconds() <= 0) return "";
  std::string text = Seconds(f.duration_seconds());
  if (f.duration_high_seconds() > 0) {
    absl::StrAppend(&text, " (", Seconds(f.duration_low_seconds()), " to ",
                    Seconds(f.duration_high_seconds()), ")");
  }
  return text;
}

std::string CostText(const v1::Forecast& f) {
  std::vector<std::string> parts;
  if (f.gpu_hours() > 0) parts.push_back(absl::StrFormat("%.3g GPU-hours", f.gpu_hours()));
  if (f.energy_joules() > 0)
    parts.push_back(absl::StrFormat("%.3g kWh", f.energy_joules() / kJoulesPerKwh));
  if (f.cost() > 0) parts.push_back(absl::StrFormat("%s %.2f", f.currency(), f.cost()));
  return absl::StrJoin(parts, ", ");
}

// What a job has used so far, and what it will have at its end.
std::string UsedText(const v1::Forecast& f) {
  std::vector<std::string> parts;
  if (f.actual_gpu_hours() > 0)
    parts.push_back(absl::StrFormat("%.3g GPU-hours used", f.actual_gpu_hours()));
  if (f.actual_energy_joules() > 0)
    parts.push_back(absl::StrFormat("%.3g kWh", f.actual_energy_joules() / kJoulesPerKwh));
  if (f.actual_cost() > 0) {
    parts.push_back(absl::StrFormat("%s %.2f", f.currency(), f.actual_cost()));
    if (f.revised_cost() > 0) parts.back() += absl::StrFormat(" of about %.2f", f.revised_cost());
  }
  return absl::StrJoin(parts, ", ");
}

std::string ErrorText(double ratio) { return absl::StrFormat("%+.0f %%", 100 * ratio); }

// " fp8 base," and, of a device that only computes with its values, what it is not.
std::string BaseText(const v1::PlannedRun& r) {
  if (r.quantization() == "none" || r.quantization().empty()) return "";
  const DeviceKind* kind = FindDevice(r.device());
  const bool slow = r.quantization() == "fp8" && kind != nullptr && kind->rates.gemm_fp8 == 0;
  return absl::StrCat(" ", r.quantization(), " base",
                      slow ? absl::StrCat(" (", r.device(), " multiplies in bf16: no faster)") : "",
                      ",");
}

}  // namespace

std::string RunText(const v1::PlannedRun& r) {
  std::string text = absl::StrCat(Counted(r.gpus(), r.device() == "cpu" ? "slot" : "GPU"), ":");
  if (r.gpus() > 1) absl::StrAppend(&text, " data ", r.data_parallel());
  if (r.context_parallel() > 1) absl::StrAppend(&text, " x context ", r.context_parallel());
  if (r.gpus() > 1) absl::StrAppend(&text, ",");
  if (r.zero_stage() > 0) absl::StrAppend(&text, " ZeRO ", r.zero_stage(), ",");
  if (r.shard_base()) absl::StrAppend(&text, " sharded base,");
  if (r.activation_offload()) absl::StrAppend(&text, " offload,");
  return absl::StrCat(text, BaseText(r), " recompute ", r.recompute());
}

void PrintForecast(const v1::Forecast& forecast, Output& output) {
  if (!forecast.has_plan()) {
    output.PrintFields({{"forecast", ForecastText(forecast)}});
    return;
  }
  const bool two = forecast.has_runner_up();
  Table table(two ? std::vector<std::string>{"", "CHOSEN", "RUNNER-UP"}
                  : std::vector<std::string>{"", "CHOSEN"});
  for (const Line& line : kLines) {
    const std::string first = line.text(forecast.plan());
    const std::string second = two ? line.text(forecast.runner_up()) : "";
    if (first.empty() && second.empty()) continue;
    table.Add(two ? std::vector<std::string>{line.name, first, second}
                  : std::vector<std::string>{line.name, first});
  }
  output.PrintTable(table);
  std::vector<std::pair<std::string, std::string>> fields;
  const auto add = [&](const char* name, const std::string& text) {
    if (!text.empty()) fields.emplace_back(name, text);
  };
  output.stream() << "\n";
  add("speed", forecast.tokens_per_second() > 0
                   ? absl::StrCat(SpeedText(forecast.tokens_per_second()), " tokens/s")
                   : "not known: no probe of such a host (ll-trainer probe)");
  add("time", TimeText(forecast));
  add("cost", CostText(forecast));
  add("runner-up", forecast.runner_up_reason());
  add("note", forecast.forced() ? "forced although it does not fit" : "");
  output.PrintFields(fields);
}

void PrintDevices(const std::vector<LocalPlan>& plans, Output& output) {
  Table table({"DEVICE", "MEMORY", "STEP", "TIME", "PLAN"});
  for (const LocalPlan& p : plans) {
    if (!p.job.ok()) {
      table.Add({p.device, "", "", "", absl::StrCat("refused: ", p.job.status().message())});
      continue;
    }
    const v1::Forecast& f = p.job->forecast();
    const bool unsupported = absl::StartsWith(f.explanation(), "unsupported");
    table.Add({p.device, Bytes(f.bytes_per_rank()), Seconds(f.plan().step_seconds()),
               Seconds(f.duration_seconds()),
               absl::StrCat(RunText(f.plan()), unsupported ? " (unsupported: needs sm_80+)" : "")});
  }
  output.PrintTable(table);
}

std::string AgainstActualText(const v1::Job& job) {
  const v1::Forecast& f = job.forecast();
  std::vector<std::string> parts;
  if (f.has_duration_error_ratio()) {
    parts.push_back(absl::StrCat("trained ", Seconds(f.actual_seconds()), " (forecast ",
                                 Seconds(f.duration_seconds()), ", ",
                                 ErrorText(f.duration_error_ratio()), ")"));
  }
  if (f.has_step_error_ratio()) {
    parts.push_back(absl::StrCat("step ", Seconds(f.measured_step_seconds()), " (forecast ",
                                 Seconds(f.plan().step_seconds()), ", ",
                                 ErrorText(f.step_error_ratio()), ")"));
  } else if (f.measured_step_seconds() > 0) {
    parts.push_back(absl::StrCat("step ", Seconds(f.measured_step_seconds())));
  }
  if (f.has_memory_error_ratio()) {
    parts.push_back(absl::StrCat("peak ", HumanBytes(job.progress().peak_bytes()), " (forecast ",
                                 HumanBytes(f.bytes_per_rank()), ", ",
                                 ErrorText(f.memory_error_ratio()), ")"));
  }
  if (const std::string used = UsedText(f); !used.empty()) parts.push_back(used);
  if (f.has_start_low() && !job.has_started()) {
    parts.push_back(absl::StrCat("starts between ", Rfc3339(ToTime(f.start_low())), " and ",
                                 Rfc3339(ToTime(f.start_high()))));
  }
  if (f.has_finish_low() && !job.has_finished()) {
    parts.push_back(absl::StrCat("ends between ", Rfc3339(ToTime(f.finish_low())), " and ",
                                 Rfc3339(ToTime(f.finish_high()))));
  }
  return absl::StrJoin(parts, ", ");
}

}  // namespace ll
