#include "coordinator/api/job_plan.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "model/plan/devices.h"
#include "model/plan/forecast_json.h"
#include "model/plan/nearest.h"

namespace ll {
namespace {

std::string WhyUnsupported(const Device& device) {
  const DeviceKind* kind = FindDevice(device.kind);
  return kind == nullptr ? "" : kind->unsupported;
}

// A kind of slot and the best plan on it.
struct Candidate {
  Cluster cluster;
  std::vector<PlannedRun> plans;
  std::optional<PlanChoice> choice;
};

// Fewest GPUs first, then the smallest device: larger ones are left to jobs that need them.
bool Better(const Candidate& a, const Candidate& b) {
  if (a.choice->chosen.plan.gpus != b.choice->chosen.plan.gpus)
    return a.choice->chosen.plan.gpus < b.choice->chosen.plan.gpus;
  return a.cluster.device.memory_bytes < b.cluster.device.memory_bytes;
}

absl::Status Refused(const Candidate& largest, const PlanProblem& problem, bool workers) {
  const Refusal refusal = Refuse(problem, largest.plans);
  const absl::string_view field = refusal.missing_bytes > 0            ? "context_length"
                                  : problem.given.deadline.has_value() ? "deadline"
                                                                       : "max_runtime";
  return FieldStatus(absl::StatusCode::kFailedPrecondition, field,
                     absl::StrCat(workers ? "no worker" : "no known kind of device",
                                  " can hold this job: ", refusal.Sentence(largest.cluster)),
                     refusal.Hint());
}

// The best plan on every kind of slot that can run one. `unsupported`: why another kind cannot.
std::vector<Candidate> PlanOnEach(const LlamaConfig& config, const JobSpec& given,
                                  const JobSpec& resolved, std::vector<Cluster> clusters,
                                  std::string& unsupported) {
  std::vector<Candidate> candidates;
  for (Cluster& cluster : clusters) {
    if (const std::string why = WhyUnsupported(cluster.device); !why.empty()) {
      unsupported = absl::StrCat(cluster.device.kind, " ", why);
      continue;
    }
    Candidate c{std::move(cluster), {}, std::nullopt};
    const PlanProblem problem{config, given, resolved, c.cluster};
    c.plans = Enumerate(problem);
    c.choice = Choose(problem, c.plans);
    if (!c.plans.empty()) candidates.push_back(std::move(c));
  }
  return candidates;
}

// What the scheduler and people are told of the chosen plan.
void Record(const Candidate& best, bool forced, const std::vector<Candidate>& candidates,
            const PlanQuestion& question, const Prices& prices, PlanAnswer& answer) {
  const auto parsed = google::protobuf::util::JsonStringToMessage(
      ForecastJson(*best.choice, best.cluster, prices, forced).dump(), &answer.forecast);
  LL_CHECK_MSG(parsed.ok(), "a forecast does not fit its message");
  if (answer.forecast.duration_seconds() > 0)
    answer.duration = absl::Seconds(answer.forecast.duration_seconds());
  const PlannedRun& run = best.choice->chosen;
  const Device& device = best.cluster.device;
  // Forced, it may start where it does not fit.
  answer.required_slot_bytes = forced ? device.memory_bytes : SlotBytesFor(run.memory.total());
  std::set<std::string> kinds, holding = {device.kind};
  for (const Cluster& cluster : question.clusters) kinds.insert(cluster.device.kind);
  for (const Candidate& c : candidates) {
    const bool alike = c.cluster.device.IsGpu() == device.IsGpu();
    if (!forced && alike && run.memory.total() <= UsableBytes(c.cluster.device))
      holding.insert(c.cluster.device.kind);
  }
  if (question.any_worker && holding != kinds)
    answer.slot_kinds.assign(holding.begin(), holding.end());
}

}  // namespace

void StripForPlan(JobSpec& spec) {
  for (auto key : {&JobSpec::name, &JobSpec::data, &JobSpec::eval_data, &JobSpec::tokenizer,
                   &JobSpec::queue, &JobSpec::notify, &JobSpec::checkpoint_uri})
    (spec.*key).reset();
  for (auto key : {&JobSpec::seed, &JobSpec::priority, &JobSpec::max_retries, &JobSpec::min_runtime,
                   &JobSpec::ttl_after_finished, &JobSpec::max_headless})
    (spec.*key).reset();
  spec.gpu_types.clear();  // the clusters are of these alone
  spec.after.clear();
  spec.after_any.clear();
  spec.labels.clear();
}

std::vector<Cluster> SlotsByKind(const ClusterView& view, int64_t gpus) {
  std::map<std::pair<std::string, int64_t>, Cluster> found;
  for (const Worker& worker : view.workers) {
    std::map<std::pair<std::string, int64_t>, int64_t> here;
    for (const Slot& slot : worker.slots) ++here[{slot.kind, slot.memory_bytes}];
    for (const auto& [key, count] : here) {
      Cluster& cluster = found.try_emplace(key, Cluster{{}, {}, 0, 0}).first->second;
      cluster.device = {key.first, key.second};
      cluster.rates = RatesOf(key.first);
      cluster.slots += count;
      cluster.per_host = std::max(cluster.per_host, count);
    }
  }
  std::vector<Cluster> clusters;
  for (auto& [key, cluster] : found) clusters.push_back(cluster);
  if (!view.workers.empty()) return clusters;
  // Never a worker yet: the devices that a first one may bring, on hosts as they are usual.
  constexpr int64_t kUsualHost = 8;
  for (const DeviceKind& kind : DeviceCatalogue())
    clusters.push_back({kind.device, kind.rates, std::max(gpus, kUsualHost), kUsualHost});
  return clusters;
}

std::string WorkerThatTellsNoMemory(const ClusterView& view) {
  for (const Worker& worker : view.workers) {
    for (const Slot& slot : worker.slots) {
      if (slot.memory_bytes == 0) return worker.name.value();
    }
  }
  return "";
}

PlanAnswer AnswerOf(const PlanQuestion& question, const Prices& prices) {
  PlanAnswer answer;
  const JobSpec& given = question.given;
  std::string unsupported;
  std::vector<Candidate> candidates =
      PlanOnEach(*question.config, given, question.resolved, question.clusters, unsupported);
  if (candidates.empty() && !unsupported.empty()) {
    answer.refused = FieldStatus(absl::StatusCode::kFailedPrecondition, "gpus",
                                 absl::StrCat("no worker can run this job: ", unsupported));
    return answer;
  }
  if (candidates.empty()) {
    answer.forecast.set_explanation("no worker has told of a slot yet");
    return answer;
  }
  Candidate* best = nullptr;
  Candidate* largest = &candidates[0];
  for (Candidate& c : candidates) {
    if (c.cluster.device.memory_bytes > largest->cluster.device.memory_bytes) largest = &c;
    if (c.choice && (best == nullptr || Better(c, *best))) best = &c;
  }
  const bool forced = best == nullptr;
  if (forced) {
    const PlanProblem problem{*question.config, given, question.resolved, largest->cluster};
    if (!question.resolved.force.value_or(false)) {
      answer.refused = Refused(*largest, problem, question.any_worker);
      return answer;
    }
    best = largest;
    best->choice = PlanChoice{Leanest(best->plans), std::nullopt, ""};
  }
  answer.plan = best->choice->chosen.plan;
  // Which device a first worker brings is not known: the trainer sees what recomputation it needs.
  answer.trainer_chooses_recompute = !question.any_worker && !given.recompute;
  Record(*best, forced, candidates, question, prices, answer);
  return answer;
}

}  // namespace ll
