#include "llctl/describe_text.h"

#include <algorithm>
#include <sstream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/counted.h"
#include "base/field_error.h"
#include "base/format.h"
#include "base/terminal_text.h"
#include "llctl/errors.h"
#include "llctl/output.h"
#include "llctl/plan_text.h"
#include "llctl/proto_json.h"

namespace ll {
namespace {

using TextFields = std::vector<std::pair<std::string, std::string>>;

constexpr int64_t kRanksShown = 64;
constexpr absl::Duration kStale = absl::Minutes(10);

std::string AgoText(const google::protobuf::Timestamp& time, absl::Time now) {
  if (time.seconds() == 0) return "";
  return absl::StrCat(Rfc3339(ToTime(time)), " (", AgeText(time, now), " ago)");
}

std::string SecondsText(double seconds) {
  if (!(seconds > 0)) return "";
  if (seconds < 10) return absl::StrFormat("%.3g s", seconds);
  return HumanDuration(absl::Seconds(seconds));
}

std::string BytesText(int64_t bytes) { return bytes > 0 ? HumanBytes(bytes) : ""; }

// A page of sections.
class Page {
 public:
  Page(int width, bool color) : width_(width), color_(color) {}

  void Section(const std::string& title) {
    out_ << (out_.tellp() > 0 ? "\n" : "") << (color_ ? "\033[1m" : "") << title << ":"
         << (color_ ? "\033[0m" : "") << "\n";
  }
  // Fields without a value are left out.
  void Fields(const TextFields& fields) {
    size_t longest = 0;
    for (const auto& [key, value] : fields) {
      if (!value.empty()) longest = std::max(longest, key.size());
    }
    for (const auto& [key, value] : fields) {
      if (value.empty()) continue;
      const std::string indent(longest + 5, ' ');
      const std::string trimmed(
          absl::StripTrailingAsciiWhitespace(Shown(value, /*lines=*/true, color_)));
      out_ << "  " << key << ":" << std::string(longest - key.size() + 2, ' ')
           << absl::StrJoin(absl::StrSplit(trimmed, '\n'), absl::StrCat("\n", indent)) << "\n";
    }
  }
  void Rows(const Table& table) {
    if (table.rows() == 0) return Line("none");
    for (const std::string& line : table.Lines(width_ > 2 ? width_ - 2 : 0, color_)) Line(line);
  }
  void Line(const std::string& line) { out_ << "  " << line << "\n"; }
  std::string text() const { return out_.str(); }

 private:
  const int width_;
  const bool color_;
  std::ostringstream out_;
};

void AddIdentity(const DescribedJob& d, absl::Time now, bool color, Page& page) {
  const v1::Job& job = d.job;
  const v1::JobSpec& spec = job.has_resolved_spec() ? job.resolved_spec() : job.spec();
  std::vector<std::string> labels;
  for (const auto& [key, value] : spec.labels())
    labels.push_back(OneLine(absl::StrCat(key, "=", value)));
  std::sort(labels.begin(), labels.end());
  page.Section("Job");
  page.Fields({
      {"Id", job.job_id()},
      {"Name", OneLine(job.spec().name())},
      {"Kind", spec.kind()},
      {"User", OneLine(job.user())},
      {"Tenant", job.tenant()},
      {"Queue", spec.queue()},
      {"Priority", spec.has_priority() ? absl::StrCat(spec.priority()) : ""},
      {"Labels", absl::StrJoin(labels, ", ")},
      {"State", StateText(job.state(), color)},
      {"Reason", OneLine(job.reason())},
      {"Why", OneLine(d.why)},
      {"Failure class", job.failure_class() == v1::FAILURE_CLASS_UNSPECIFIED
                            ? ""
                            : v1::FailureClass_Name(job.failure_class())},
      {"Submitted", AgoText(job.submitted(), now)},
      {"Started", AgoText(job.started(), now)},
      {"Finished", AgoText(job.finished(), now)},
  });
}

void AddProgress(const v1::Job& job, Page& page) {
  const v1::Progress& p = job.progress();
  if (p.step() == 0) return;
  const auto eta = Eta(p);
  page.Section("Progress");
  page.Fields({
      {"Step", StepText(p)},
      {"Loss", LossText(p)},
      {"Gradient norm", absl::StrFormat("%.4g", p.grad_norm())},
      {"Learning rate", absl::StrFormat("%.4g", p.learning_rate())},
      {"Tokens", HumanCount(p.tokens())},
      {"Tokens/s", SpeedText(p.tokens_per_second())},
      {"MFU", p.has_mfu() ? absl::StrFormat("%.1f %%", 100 * p.mfu()) : ""},
      {"ETA", !HasEnded(job.state()) && eta ? HumanDuration(*eta) : ""},
  });
}

void AddForecastRows(const v1::Job& job, Page& page) {
  const v1::Forecast& f = job.forecast();
  page.Section("Forecast and actual");
  Table table({"", "FORECAST", "ACTUAL", "ERROR"});
  const auto add = [&table](const char* name, const std::string& forecast,
                            const std::string& actual, const std::string& error) {
    if (!forecast.empty() || !actual.empty()) table.Add({name, forecast, actual, error});
  };
  const auto percent = [](bool has, double ratio) {
    return has ? absl::StrFormat("%+.1f %%", 100 * ratio) : std::string();
  };
  const auto number = [](double value) {
    return value > 0 ? absl::StrFormat("%.3g", value) : std::string();
  };
  add("memory a rank", BytesText(f.bytes_per_rank()), BytesText(job.progress().peak_bytes()),
      percent(f.has_memory_error_ratio(), f.memory_error_ratio()));
  add("step", SecondsText(f.plan().step_seconds()), SecondsText(f.measured_step_seconds()),
      percent(f.has_step_error_ratio(), f.step_error_ratio()));
  add("tokens/s", SpeedText(f.tokens_per_second()), SpeedText(job.progress().tokens_per_second()),
      "");
  add("training", SecondsText(f.duration_seconds()), SecondsText(f.actual_seconds()),
      percent(f.has_duration_error_ratio(), f.duration_error_ratio()));
  add("GPU-hours", number(f.gpu_hours()), number(f.actual_gpu_hours()), "");
  add("energy [kWh]", number(f.energy_joules() / 3.6e6), number(f.actual_energy_joules() / 3.6e6),
      "");
  if (f.cost() > 0)
    add("cost", absl::StrFormat("%s %.2f", f.currency(), f.cost()),
        f.actual_cost() > 0 ? absl::StrFormat("%s %.2f", f.currency(), f.actual_cost()) : "", "");
  if (table.rows() == 0) return page.Line("nothing is forecast of this kind of job");
  page.Rows(table);
}

void AddPlan(const v1::Job& job, Page& page) {
  const v1::Forecast& f = job.forecast();
  if (!f.has_plan() && f.explanation().empty()) return;
  page.Section("Plan");
  page.Fields({{"Runs as", f.has_plan() ? RunText(f.plan()) : ""},
               {"Device", f.plan().device()},
               {"Because", OneLine(f.explanation())},
               {"Runner-up", f.has_runner_up() ? RunText(f.runner_up()) : ""},
               {"Not chosen", OneLine(f.runner_up_reason())},
               {"Note", f.forced() ? "forced although it does not fit" : ""}});
}

void AddRanks(const v1::Job& job, Page& page) {
  page.Section("Ranks");
  Table table({"RANK", "WORKER"});
  for (int64_t i = 0; i < std::min<int64_t>(job.workers_size(), kRanksShown); ++i)
    table.Add({absl::StrCat(i), job.workers(static_cast<int>(i))});
  if (job.workers().empty()) return page.Line("it holds no slots");
  page.Rows(table);
  if (job.workers_size() > kRanksShown)
    page.Line(absl::StrCat("and ", job.workers_size() - kRanksShown, " more"));
  if (job.headless()) page.Line("a worker is out of contact; its ranks train on");
}

void AddAttempts(const v1::Job& job, absl::Time now, Page& page) {
  page.Section("Attempts");
  Table table({"ATTEMPT", "STARTED", "TOOK", "STEPS", "ENDED AS", "REASON"});
  for (const Attempt& a : AttemptsOf(job)) {
    table.Add({absl::StrCat(a.epoch), Rfc3339(a.started),
               HumanDuration(std::min(a.ended, now) - a.started),
               a.last_step > 0 ? absl::StrCat(a.first_step, "-", a.last_step) : "",
               a.ended_as.empty() ? "(goes on)" : a.ended_as, OneLine(a.reason)});
  }
  page.Rows(table);
}

// The events' plain values; a column a key that any of them has.
void AddEvaluations(const DescribedJob& d, Page& page) {
  if (d.evaluations.empty()) return;
  std::vector<nlohmann::ordered_json> events;
  std::vector<std::string> header = {"STEP"}, keys = {"step"};
  for (const google::protobuf::Struct& event : d.evaluations) {
    events.push_back(ProtoToJson(event));
    for (const auto& [key, value] : events.back().items()) {
      if (key == "event" || key == "time" || value.is_structured()) continue;
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      keys.push_back(key);
      header.push_back(absl::AsciiStrToUpper(key));
    }
  }
  page.Section("Evaluations");
  Table table(header);
  for (const nlohmann::ordered_json& event : events) {
    std::vector<std::string> row;
    for (const std::string& key : keys) {
      const auto found = event.find(key);
      row.push_back(found == event.end()       ? ""
                    : found->is_string()       ? OneLine(found->get<std::string>())
                    : found->is_number_float() ? absl::StrFormat("%.6g", found->get<double>())
                                               : found->dump());
    }
    table.Add(row);
  }
  page.Rows(table);
}

void AddCheckpoints(const DescribedJob& d, absl::Time now, Page& page) {
  page.Section("Checkpoints");
  Table table({"STEP", "ATTEMPT", "AGE", "SIZE", "LOSS", "KEPT AS", "WHERE"});
  for (const v1::CheckpointRecord& c : d.checkpoints) {
    table.Add({absl::StrCat(c.step()), absl::StrCat(c.epoch()), AgeText(c.written(), now),
               BytesText(c.size_bytes()), c.has_loss() ? absl::StrFormat("%.4f", c.loss()) : "",
               c.kept(), c.removed() ? c.copy_uri() : c.path()});
  }
  page.Rows(table);
}

void AddEvents(const v1::Job& job, absl::Time now, Page& page) {
  page.Section("Events");
  Table table({"AGE", "TIME", "STATE", "ATTEMPT", "REASON"});
  for (const v1::Transition& t : job.history()) {
    table.Add({AgeText(t.time(), now), Rfc3339(ToTime(t.time())), v1::JobState_Name(t.state()),
               t.epoch() == 0 ? "" : absl::StrCat(t.epoch()), OneLine(t.reason())});
  }
  page.Rows(table);
}

bool IsBetweenAttempts(v1::JobState state) {
  return state == v1::BLOCKED || state == v1::QUEUED || state == v1::PAUSED ||
         state == v1::RETRYING;
}

Condition CheckpointCondition(const DescribedJob& d, absl::Time now) {
  if (d.checkpoints.empty())
    return {"Checkpointed", "False", "no checkpoint yet: a new attempt starts from the first step"};
  const v1::CheckpointRecord& newest = d.checkpoints.front();
  return {"Checkpointed", "True",
          absl::StrCat("step ", newest.step(), ", ", AgeText(newest.written(), now), " ago")};
}

Condition ProgressCondition(const v1::Job& job, absl::Time now) {
  if (job.state() != v1::RUNNING) return {"Progressing", "False", "it does not run"};
  if (!job.progress().has_time()) return {"Progressing", "Unknown", "no step yet"};
  const absl::Duration silence = now - ToTime(job.progress().time());
  const absl::Duration patience =
      std::max(kStale, 5 * absl::Seconds(job.progress().step_seconds()));
  const std::string newest = absl::StrCat("step ", job.progress().step(), " ended ",
                                          AgeText(job.progress().time(), now), " ago");
  return {"Progressing", silence > patience ? "False" : "True", newest};
}

Condition MemoryCondition(const v1::Job& job) {
  const int64_t there = job.forecast().available_bytes_per_slot();
  const int64_t peak = job.progress().peak_bytes() > 0 ? job.progress().peak_bytes()
                                                       : job.forecast().bytes_per_rank();
  if (there <= 0 || peak <= 0) return {"FitsMemory", "Unknown", "nothing is known of its memory"};
  return {"FitsMemory", peak <= there ? "True" : "False",
          absl::StrCat(HumanBytes(peak), job.progress().peak_bytes() > 0 ? " used" : " forecast",
                       " of ", HumanBytes(there), " a slot")};
}

}  // namespace

std::vector<Attempt> AttemptsOf(const v1::Job& job) {
  std::vector<Attempt> attempts;
  for (const v1::Transition& t : job.history()) {
    if (t.epoch() == 0) continue;
    const bool ends = IsBetweenAttempts(t.state()) || HasEnded(t.state());
    if (attempts.empty() || attempts.back().epoch != t.epoch()) {
      if (ends) continue;  // the history's beginning was cut
      attempts.push_back({.epoch = t.epoch(), .started = ToTime(t.time())});
    }
    Attempt& attempt = attempts.back();
    if (!ends || !attempt.ended_as.empty()) continue;
    attempt.ended = ToTime(t.time());
    attempt.ended_as = v1::JobState_Name(t.state());
    attempt.reason = t.reason();
  }
  for (Attempt& attempt : attempts) {
    for (const v1::StepRecord& step : job.steps()) {
      if (step.epoch() != attempt.epoch) continue;
      if (attempt.first_step == 0) attempt.first_step = step.step();
      attempt.last_step = step.step();
    }
  }
  return attempts;
}

std::vector<Condition> ConditionsOf(const DescribedJob& d, absl::Time now) {
  const v1::Job& job = d.job;
  const bool ended = HasEnded(job.state());
  const bool waits = IsBetweenAttempts(job.state());
  std::vector<Condition> conditions = {
      {"Admitted", "True", absl::StrCat("submitted ", AgeText(job.submitted(), now), " ago")},
      {"Scheduled", waits || ended ? "False" : "True",
       waits ? OneLine(job.reason())
       : ended
           ? "it has ended"
           : absl::StrCat("attempt ", job.epoch(), " on ", Counted(job.workers_size(), "slot"))},
      ProgressCondition(job, now),
      {"InContact",
       job.workers().empty() ? "Unknown"
       : job.headless()      ? "False"
                             : "True",
       job.workers().empty() ? "it holds no slots"
       : job.headless()      ? "a worker is out of contact; its ranks train on"
                             : "every worker answers"},
      MemoryCondition(job),
      CheckpointCondition(d, now),
      {"Complete",
       job.state() == v1::SUCCEEDED ? "True"
       : ended                      ? "False"
                                    : "Unknown",
       ended ? OneLine(job.reason()) : "it goes on"},
  };
  return conditions;
}

std::string DescribeText(const DescribedJob& d, absl::Time now, int width, bool color) {
  Page page(width, color);
  AddIdentity(d, now, color, page);
  page.Section("Conditions");
  Table conditions({"TYPE", "STATUS", "REASON"});
  for (const Condition& c : ConditionsOf(d, now)) conditions.Add({c.type, c.status, c.reason});
  page.Rows(conditions);
  AddProgress(d.job, page);
  AddForecastRows(d.job, page);
  AddPlan(d.job, page);
  AddRanks(d.job, page);
  AddAttempts(d.job, now, page);
  AddEvaluations(d, page);
  AddCheckpoints(d, now, page);
  if (d.job.has_result()) {
    page.Section("Result");
    for (const absl::string_view line :
         absl::StrSplit(JsonToYaml(ProtoToJson(d.job.result())), '\n', absl::SkipEmpty()))
      page.Line(std::string(line));
  }
  page.Section("Spec");
  for (const absl::string_view line :
       absl::StrSplit(SpecText(d.job.has_resolved_spec() ? d.job.resolved_spec() : d.job.spec()),
                      '\n', absl::SkipEmpty()))
    page.Line(std::string(line));
  AddEvents(d.job, now, page);
  return page.text();
}

nlohmann::ordered_json DescribeJson(const DescribedJob& d, absl::Time now) {
  nlohmann::ordered_json conditions = nlohmann::ordered_json::array();
  for (const Condition& c : ConditionsOf(d, now))
    conditions.push_back({{"type", c.type}, {"status", c.status}, {"reason", c.reason}});
  nlohmann::ordered_json attempts = nlohmann::ordered_json::array();
  for (const Attempt& a : AttemptsOf(d.job)) {
    nlohmann::ordered_json attempt = {{"epoch", a.epoch}, {"started", Rfc3339(a.started)}};
    if (!a.ended_as.empty()) {
      attempt["ended"] = Rfc3339(a.ended);
      attempt["ended_as"] = a.ended_as;
      attempt["reason"] = a.reason;
    }
    if (a.last_step > 0) {
      attempt["first_step"] = a.first_step;
      attempt["last_step"] = a.last_step;
    }
    attempts.push_back(attempt);
  }
  nlohmann::ordered_json evaluations = nlohmann::ordered_json::array();
  for (const auto& event : d.evaluations) evaluations.push_back(ProtoToJson(event));
  nlohmann::ordered_json checkpoints = nlohmann::ordered_json::array();
  for (const auto& checkpoint : d.checkpoints) checkpoints.push_back(ProtoToJson(checkpoint));
  return {{"job", ProtoToJson(d.job)},  {"why", d.why},
          {"conditions", conditions},   {"attempts", attempts},
          {"evaluations", evaluations}, {"checkpoints", checkpoints}};
}

}  // namespace ll
