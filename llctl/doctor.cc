// llctl doctor
#include "llctl/doctor.h"

#include <CLI/CLI.hpp>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"
#include "llctl/errors.h"
#include "llctl/job_ref.h"
#include "llctl/proto_json.h"
#include "llctl/session.h"

namespace ll {
namespace {

constexpr size_t kWindow = 50, kLeastBefore = 8;
constexpr double kDeviations = 6, kLeastShare = 0.1;
constexpr int kJobsLookedAt = 1000;

std::string LabelOf(const v1::JobSpec& spec, const std::string& name) {
  const auto found = spec.labels().find(name);
  return found == spec.labels().end() ? "" : found->second;
}

bool EndedBadly(const v1::Job& job) {
  return job.state() == v1::FAILED || job.failure_class() != v1::FAILURE_CLASS_UNSPECIFIED;
}

// The newest job of its series that succeeded before it, with its resolved spec.
absl::StatusOr<std::optional<v1::Job>> LastSuccess(const v1::Job& job, Client& client) {
  v1::ListRequest request;
  request.set_page_size(kJobsLookedAt);
  request.add_states(v1::SUCCEEDED);
  LL_ASSIGN_OR_RETURN(const v1::ListResponse list,
                      client.Call(client.jobs(), &v1::Jobs::Stub::List, request));
  for (const v1::Job& other : list.jobs()) {  // newest first
    const bool earlier = other.submitted().seconds() <= job.submitted().seconds();
    if (other.job_id() == job.job_id() || !earlier || !IsOfTheSameSeries(job.spec(), other.spec()))
      continue;
    v1::GetRequest get;
    get.set_job_id(other.job_id());
    LL_ASSIGN_OR_RETURN(v1::Job found, client.Call(client.jobs(), &v1::Jobs::Stub::Get, get));
    return std::optional<v1::Job>(std::move(found));
  }
  return std::optional<v1::Job>();
}

struct Finding {
  v1::Job job;
  std::string why;
  std::optional<BadStep> bad_step;
  std::optional<v1::CheckpointRecord> checkpoint;  // the newest
  std::vector<v1::Transition> bad_attempts;
  std::optional<v1::Job> last_success;
  std::vector<std::string> changes;
};

absl::StatusOr<Finding> Examine(const std::string& job_id, Client& client) {
  Finding finding;
  v1::GetRequest get;
  get.set_job_id(job_id);
  get.set_history(true);
  LL_ASSIGN_OR_RETURN(finding.job, client.Call(client.jobs(), &v1::Jobs::Stub::Get, get));
  v1::WhyRequest why;
  why.set_job_id(job_id);
  LL_ASSIGN_OR_RETURN(const v1::WhyResponse answer,
                      client.Call(client.jobs(), &v1::Jobs::Stub::Why, why));
  finding.why = answer.sentence();
  finding.bad_step = FirstBadStep({finding.job.steps().begin(), finding.job.steps().end()});
  if (!finding.bad_step && finding.job.failure_class() == v1::NOT_A_NUMBER) {
    // What a guard catches is not told as a step.
    const bool any = !finding.job.steps().empty();
    const v1::StepRecord last = any ? *finding.job.steps().rbegin() : v1::StepRecord();
    finding.bad_step = BadStep{last.step() + 1, any ? last.epoch() : finding.job.epoch(),
                               "loss or gradient was no number; it was caught before it counted"};
  }
  v1::CheckpointsRequest checkpoints;
  checkpoints.set_job_id(job_id);
  LL_ASSIGN_OR_RETURN(const v1::CheckpointsResponse there,
                      client.Call(client.jobs(), &v1::Jobs::Stub::Checkpoints, checkpoints));
  if (!there.checkpoints().empty()) finding.checkpoint = there.checkpoints(0);
  for (const v1::Transition& t : finding.job.history()) {
    if (t.state() == v1::RETRYING || t.state() == v1::FAILED) finding.bad_attempts.push_back(t);
  }
  LL_ASSIGN_OR_RETURN(finding.last_success, LastSuccess(finding.job, client));
  if (finding.last_success.has_value())
    finding.changes =
        SpecChanges(finding.last_success->resolved_spec(), finding.job.resolved_spec());
  return finding;
}

std::string CheckpointText(const v1::CheckpointRecord& checkpoint, absl::Time now) {
  const std::string where = checkpoint.removed() ? checkpoint.copy_uri() : checkpoint.path();
  std::string text = absl::StrCat("step ", checkpoint.step(), ", ", where);
  if (checkpoint.written().seconds() > 0)
    absl::StrAppend(&text, ", ", AgeText(checkpoint.written(), now), " ago");
  return text;
}

void PrintFinding(const Finding& finding, Session& session) {
  const v1::Job& job = finding.job;
  Output& output = session.output();
  std::vector<std::pair<std::string, std::string>> fields = {
      {"job", job.spec().name().empty() ? job.job_id()
                                        : absl::StrCat(job.job_id(), " ", job.spec().name())},
      {"state", output.State(job.state())},
      {"why", finding.why},
      {"failure class", job.failure_class() == v1::FAILURE_CLASS_UNSPECIFIED
                            ? ""
                            : v1::FailureClass_Name(job.failure_class())},
      {"last attempt", job.epoch() == 0 ? "" : absl::StrCat(job.epoch())},
  };
  std::vector<std::string> bad;
  for (const v1::Transition& t : finding.bad_attempts) {
    bad.push_back(absl::StrCat("attempt ", t.epoch(), " (", AgeText(t.time(), session.now()),
                               " ago): ", t.reason()));
  }
  fields.emplace_back("ended badly", absl::StrJoin(bad, "\n"));
  if (!job.steps().empty() || finding.bad_step) {
    fields.emplace_back("first bad step",
                        finding.bad_step
                            ? absl::StrCat(finding.bad_step->step, ", attempt ",
                                           finding.bad_step->epoch, ": ", finding.bad_step->what)
                            : "none");
  }
  fields.emplace_back("last checkpoint", finding.checkpoint
                                             ? CheckpointText(*finding.checkpoint, session.now())
                                         : job.epoch() > 0 ? "none"
                                                           : "");
  if (finding.last_success) {
    fields.emplace_back(
        "last success",
        absl::StrCat(finding.last_success->job_id(), ", ",
                     AgeText(finding.last_success->submitted(), session.now()), " ago"));
    fields.emplace_back("changed since", finding.changes.empty()
                                             ? "nothing in the specification"
                                             : absl::StrJoin(finding.changes, "\n"));
  } else if (EndedBadly(job)) {
    fields.emplace_back("last success", "none to compare with");
  }
  fields.emplace_back("what to do", Advice(job, finding.checkpoint.has_value()));
  std::erase_if(fields, [](const auto& field) { return field.second.empty(); });
  output.PrintFields(fields);
}

nlohmann::ordered_json FindingJson(const Finding& finding) {
  nlohmann::ordered_json json = {{"job_id", finding.job.job_id()},
                                 {"state", v1::JobState_Name(finding.job.state())},
                                 {"why", finding.why},
                                 {"epoch", finding.job.epoch()}};
  if (finding.job.failure_class() != v1::FAILURE_CLASS_UNSPECIFIED)
    json["failure_class"] = v1::FailureClass_Name(finding.job.failure_class());
  json["ended_badly"] = nlohmann::ordered_json::array();
  for (const v1::Transition& t : finding.bad_attempts)
    json["ended_badly"].push_back(ProtoToJson(t));
  if (finding.bad_step) {
    json["first_bad_step"] = {{"step", finding.bad_step->step},
                              {"epoch", finding.bad_step->epoch},
                              {"what", finding.bad_step->what}};
  }
  if (finding.checkpoint) json["last_checkpoint"] = ProtoToJson(*finding.checkpoint);
  if (finding.last_success) {
    json["last_success"] = finding.last_success->job_id();
    json["changed_since"] = finding.changes;
  }
  if (const std::string advice = Advice(finding.job, finding.checkpoint.has_value());
      !advice.empty())
    json["advice"] = advice;
  return json;
}

absl::StatusOr<int> RunDoctor(const std::string& job, Session& session) {
  LL_ASSIGN_OR_RETURN(Client * client, session.client());
  LL_ASSIGN_OR_RETURN(const std::string job_id, JobIdOf(job, *client));
  LL_ASSIGN_OR_RETURN(const Finding finding, Examine(job_id, *client));
  Output& output = session.output();
  if (output.format() == OutputFormat::kName) {
    output.stream() << job_id << "\n";
  } else if (output.is_table()) {
    PrintFinding(finding, session);
  } else {
    output.PrintValue(FindingJson(finding));
  }
  return kExitSuccess;
}

}  // namespace

std::optional<BadStep> FirstBadStep(const std::vector<v1::StepRecord>& steps) {
  for (size_t i = 0; i < steps.size(); ++i) {
    const v1::StepRecord& step = steps[i];
    if (!std::isfinite(step.loss()))
      return BadStep{step.step(), step.epoch(), absl::StrCat("loss is ", step.loss())};
    if (!std::isfinite(step.grad_norm()))
      return BadStep{step.step(), step.epoch(),
                     absl::StrCat("gradient norm is ", step.grad_norm())};
    const size_t before = std::min(i, kWindow);
    if (before < kLeastBefore) continue;
    double sum = 0, squares = 0;
    for (size_t j = i - before; j < i; ++j) sum += steps[j].loss();
    const double mean = sum / static_cast<double>(before);
    for (size_t j = i - before; j < i; ++j)
      squares += (steps[j].loss() - mean) * (steps[j].loss() - mean);
    const double deviation = std::sqrt(squares / static_cast<double>(before - 1));
    const double above = step.loss() - mean;
    if (above > kDeviations * deviation && above > kLeastShare * std::fabs(mean)) {
      return BadStep{step.step(), step.epoch(),
                     absl::StrFormat("loss %.4g, %.4g ± %.2g over the %d steps before", step.loss(),
                                     mean, deviation, before)};
    }
  }
  return std::nullopt;
}

std::vector<std::string> SpecChanges(const v1::JobSpec& before, const v1::JobSpec& now) {
  const nlohmann::ordered_json old = ProtoToJson(before), current = ProtoToJson(now);
  std::vector<std::string> keys;
  for (const auto* spec : {&old, &current}) {
    for (const auto& [key, value] : spec->items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) keys.push_back(key);
    }
  }
  const auto text = [](const nlohmann::ordered_json& spec, const std::string& key) {
    const auto found = spec.find(key);
    return found == spec.end() ? std::string("not given") : found->dump();
  };
  std::vector<std::string> changes;
  for (const std::string& key : keys) {
    if (key == "name" || key == "labels") continue;
    const std::string from = text(old, key), to = text(current, key);
    if (from != to) changes.push_back(absl::StrCat(key, ": ", from, " -> ", to));
  }
  return changes;
}

bool IsOfTheSameSeries(const v1::JobSpec& job, const v1::JobSpec& other) {
  const std::string schedule = LabelOf(job, "schedule");
  if (schedule != LabelOf(other, "schedule")) return false;
  if (!schedule.empty()) return LabelOf(job, "stage") == LabelOf(other, "stage");
  if (!job.name().empty() || !other.name().empty()) return job.name() == other.name();
  return job.kind() == other.kind();
}

std::string Advice(const v1::Job& job, bool has_checkpoint) {
  switch (job.failure_class()) {
    case v1::USER:
      return "correct what the reason names and submit again";
    case v1::INFRASTRUCTURE:
      return absl::StrCat("look at the rank's log (llctl logs ", job.job_id(),
                          " --rank N) and at its host (llctl workers list); a job with retries "
                          "left goes on by itself");
    case v1::CAPACITY:
      return "llctl workers list shows what there is; llctl plan shows what the job needs";
    case v1::OUT_OF_MEMORY:
      return "llctl plan with the job's flags shows leaner plans: recompute full, more GPUs, "
             "quantization nf4, a shorter context";
    case v1::NOT_A_NUMBER:
      return absl::StrCat("submit again with a lower learning_rate, or with on_nan rollback",
                          has_checkpoint ? "; the last checkpoint is good" : "");
    default:
      return "";
  }
}

void AddDoctorCommand(CLI::App& app, Action& chosen) {
  auto job_id = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand(
      "doctor",
      "Say what went wrong in a job, what is left of it, and what changed since the "
      "last one that succeeded.");
  command->add_option("JOB", *job_id, kJobHelp)->required();
  command->callback([job_id, &chosen] {
    chosen = [job_id](Session& session) { return RunDoctor(*job_id, session); };
  });
}

}  // namespace ll
