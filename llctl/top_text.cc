#include "llctl/top_text.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/field_error.h"
#include "base/format.h"
#include "llctl/output.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

bool HoldsSlots(v1::JobState state) {
  return state == v1::STARTING || state == v1::RUNNING || state == v1::FINISHING ||
         state == v1::PAUSING || state == v1::PREEMPTING || state == v1::CANCELLING;
}

std::string TopHeadline(const TopSnapshot& snapshot) {
  size_t connected = 0, slots = 0, used = 0;
  for (const v1::Worker& worker : snapshot.workers) {
    connected += worker.connected();
    slots += worker.slots_size();
    used += worker.uses_size();
  }
  std::map<int, int> states;  // by their number: the order of a job's life
  for (const v1::Job& job : snapshot.jobs) ++states[job.state()];
  std::vector<std::string> jobs;
  for (const auto& [state, count] : states) {
    jobs.push_back(absl::StrCat(
        count, " ", absl::AsciiStrToLower(v1::JobState_Name(static_cast<v1::JobState>(state)))));
  }
  return absl::StrCat(absl::FormatTime("%H:%M:%S", snapshot.time, absl::UTCTimeZone()), " UTC  ",
                      snapshot.coordinator, "  workers ", connected, "/", snapshot.workers.size(),
                      "  slots ", used, "/", slots, "  jobs ",
                      jobs.empty() ? "none" : absl::StrJoin(jobs, ", "));
}

std::string MemoryText(const v1::Job& job) {
  const int64_t peak = job.progress().peak_bytes();
  if (peak <= 0) return "";
  const int64_t there = job.forecast().available_bytes_per_slot();
  if (there <= 0) return HumanBytes(peak);
  return absl::StrFormat("%s (%.0f %%)", HumanBytes(peak), 100.0 * peak / there);
}

std::string MfuText(const v1::Progress& progress) {
  return progress.has_mfu() ? absl::StrFormat("%.1f %%", 100 * progress.mfu()) : "";
}

Table JobsTable(const TopSnapshot& snapshot) {
  Table table({"JOB", "NAME", "STATE", "GPUS", "STEP", "LOSS", "TOKENS/S", "MFU", "PEAK MEMORY",
               "ETA", "PHASES"});
  for (const v1::Job& job : snapshot.jobs) {
    if (!HoldsSlots(job.state())) continue;
    const auto eta = Eta(job.progress());
    table.Add({job.job_id(), OneLine(job.spec().name()), v1::JobState_Name(job.state()),
               SizeText(job), StepText(job.progress()), LossText(job.progress()),
               SpeedText(job.progress().tokens_per_second()), MfuText(job.progress()),
               MemoryText(job), eta ? HumanDuration(*eta) : "", PhasesText(job.progress(), 3)});
  }
  return table;
}

// "out of contact for 2m 10s", "out of service: driver update", or "".
std::string WorkerTrouble(const v1::Worker& worker, absl::Time now) {
  if (!worker.connected())
    return absl::StrCat("out of contact for ", AgeText(worker.last_seen(), now));
  if (!worker.cordoned()) return "";
  return absl::StrCat(worker.draining() ? "draining: " : "out of service: ",
                      OneLine(worker.cordon_reason()));
}

Table SlotsTable(const TopSnapshot& snapshot) {
  Table table(
      {"WORKER", "SLOT", "KIND", "MEMORY", "USE", "GPU MEMORY", "POWER", "JOB", "RANK", "NOTE"});
  for (const v1::Worker& worker : snapshot.workers) {
    std::map<int, const v1::SlotUse*> uses;
    for (const v1::SlotUse& use : worker.uses()) uses[use.slot()] = &use;
    std::map<int, const v1::SlotLoad*> loads;
    for (const v1::SlotLoad& load : worker.loads()) loads[load.slot()] = &load;
    const std::string trouble = WorkerTrouble(worker, snapshot.time);
    if (worker.slots().empty())
      table.Add({worker.worker(), "", "", "", "", "", "", "", "", trouble});
    for (const v1::Slot& slot : worker.slots()) {
      const auto use = uses.find(slot.index());
      const auto load = loads.find(slot.index());
      const bool told = load != loads.end();
      table.Add({worker.worker(), absl::StrCat(slot.index()), slot.kind(),
                 HumanBytes(slot.memory_bytes()),
                 told && load->second->has_utilization()
                     ? absl::StrFormat("%.0f %%", 100 * load->second->utilization())
                     : "",
                 told && load->second->memory_used_bytes() > 0
                     ? HumanBytes(load->second->memory_used_bytes())
                     : "",
                 told && load->second->power_watts() > 0
                     ? absl::StrFormat("%.0f W", load->second->power_watts())
                     : "",
                 use == uses.end() ? "idle" : use->second->job_id(),
                 use == uses.end() ? "" : absl::StrCat(use->second->rank()), trouble});
    }
  }
  return table;
}

}  // namespace

std::string PhasesText(const v1::Progress& progress, size_t parts) {
  std::vector<std::pair<double, std::string>> phases;
  double sum = 0;
  for (const auto& [name, value] : progress.phases().fields()) {
    phases.emplace_back(-value.number_value(), name);
    sum += value.number_value();
  }
  if (!(sum > 0)) return "";
  std::sort(phases.begin(), phases.end());
  std::vector<std::string> texts;
  for (size_t i = 0; i < std::min(parts, phases.size()); ++i) {
    if (phases[i].first >= 0) break;
    texts.push_back(absl::StrFormat("%s %.0f %%", phases[i].second, -100 * phases[i].first / sum));
  }
  return absl::StrJoin(texts, ", ");
}

std::vector<std::string> TopLines(const TopSnapshot& snapshot, int width, int height, bool color) {
  // The second line is always there, so that trouble moves nothing.
  const std::string trouble = OneLine(snapshot.trouble);
  std::vector<std::string> lines = {
      TopHeadline(snapshot),
      color && !trouble.empty() ? absl::StrCat("\033[33m", trouble, "\033[0m") : trouble};
  const auto append = [&lines](const std::vector<std::string>& more) {
    lines.insert(lines.end(), more.begin(), more.end());
  };
  const Table jobs = JobsTable(snapshot);
  append(jobs.rows() > 0 ? jobs.Lines(width, color)
                         : std::vector<std::string>{"no job holds slots"});
  const Table slots = SlotsTable(snapshot);
  append({""});
  append(slots.rows() > 0 ? slots.Lines(width, color)
                          : std::vector<std::string>{"no workers; start ll-worker on a host"});
  if (height > 1 && lines.size() > static_cast<size_t>(height)) {
    const size_t left = lines.size() - static_cast<size_t>(height) + 1;
    lines.resize(static_cast<size_t>(height) - 1);
    lines.push_back(absl::StrCat("… ", left, " more lines (llctl top --once)"));
  }
  return lines;
}

nlohmann::ordered_json TopJson(const TopSnapshot& snapshot) {
  nlohmann::ordered_json workers = nlohmann::ordered_json::array();
  for (const v1::Worker& worker : snapshot.workers) workers.push_back(ProtoToJson(worker));
  nlohmann::ordered_json jobs = nlohmann::ordered_json::array();
  for (const v1::Job& job : snapshot.jobs) jobs.push_back(ProtoToJson(job));
  return {{"time", Rfc3339(snapshot.time)}, {"workers", workers}, {"jobs", jobs}};
}

}  // namespace ll
