#include "model/spec/stages.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "model/spec/gate.h"

namespace ll {
namespace {

constexpr int64_t kDefaultSteps = 1000;  // as Resolve's of max_steps
constexpr const char* kTasks[] = {"passkey", "perplexity", "topics"};

std::vector<int64_t> StepsOf(const JobSpec& spec) {
  if (!spec.stage_steps.empty()) return spec.stage_steps;
  const int64_t stages = static_cast<int64_t>(spec.stages.size());
  const int64_t total = spec.max_steps.value_or(kDefaultSteps);
  std::vector<int64_t> steps(stages, total / stages);
  for (int64_t i = stages - total % stages; i < stages; ++i) ++steps[i];
  return steps;
}

absl::Status CheckStageSteps(const JobSpec& spec) {
  if (spec.num_train_epochs && !spec.max_steps) {
    return MakeFieldError({"num_train_epochs", "nothing for a training in stages",
                           absl::StrCat(*spec.num_train_epochs), "give max_steps or stage_steps"});
  }
  if (spec.stage_steps.empty()) {
    const int64_t stages = static_cast<int64_t>(spec.stages.size());
    if (spec.max_steps.value_or(kDefaultSteps) >= stages) return absl::OkStatus();
    return MakeFieldError({"max_steps",
                           absl::StrCat("at least one step for each of ", stages, " stages"),
                           absl::StrCat(*spec.max_steps)});
  }
  if (spec.stage_steps.size() != spec.stages.size()) {
    return MakeFieldError({"stage_steps",
                           absl::StrCat("as many numbers as stages (", spec.stages.size(), ")"),
                           absl::StrCat(spec.stage_steps.size())});
  }
  const int64_t sum = std::accumulate(spec.stage_steps.begin(), spec.stage_steps.end(), int64_t{0});
  if (spec.max_steps.value_or(sum) != sum) {
    return MakeFieldError({"stage_steps",
                           absl::StrCat("numbers that add up to max_steps (", *spec.max_steps, ")"),
                           absl::StrCat(sum)});
  }
  return absl::OkStatus();
}

absl::Status CheckStageLengths(const JobSpec& spec) {
  const auto falling =
      std::adjacent_find(spec.stages.begin(), spec.stages.end(), std::greater_equal<int64_t>());
  if (falling != spec.stages.end()) {
    return MakeFieldError(
        {"stages", "rising context lengths", absl::StrCat(falling[1], " after ", falling[0])});
  }
  if (spec.context_length.value_or(spec.stages.back()) != spec.stages.back()) {
    return MakeFieldError(
        {"stages", absl::StrCat("context_length (", *spec.context_length, ") as the last one"),
         absl::StrCat(spec.stages.back())});
  }
  if (spec.stages.front() < 2) {
    return MakeFieldError({"stages", "at least 2 tokens", absl::StrCat(spec.stages.front())});
  }
  return absl::OkStatus();
}

absl::Status CheckGate(const JobSpec& spec) {
  LL_ASSIGN_OR_RETURN(const std::vector<Gate> gates, ParseGates(*spec.gate));
  const std::string kind = spec.kind.value_or("train");
  if (kind == "eval") return CheckGatesOfTask(gates, spec.eval_task.value_or("perplexity"));
  if (spec.stages.empty()) {
    return MakeFieldError({"gate",
                           absl::StrCat("nothing for a job of kind ", kind, " without stages"),
                           *spec.gate, "gates are for eval jobs and for trainings with stages"});
  }
  for (const Gate& gate : gates) {
    if (gate.metric == "effective_context") {
      return MakeFieldError({"gate",
                             "metrics of one length, because every stage is measured at "
                             "its own",
                             gate.metric, "passkey is the share of keys found there"});
    }
    if (gate.metric == "ppl" && spec.sft.value_or(false) && !spec.eval_data) {
      return MakeFieldError({"eval_data",
                             "a token file, because gate names ppl and the data are "
                             "instructions",
                             "nothing"});
    }
  }
  return absl::OkStatus();
}

// Builds the members one after the other.
class Expansion {
 public:
  explicit Expansion(const JobSpec& spec)
      : spec_(spec), graph_(spec.name.value_or("stages")), before_(spec.after) {
    common_.model = spec.model;
    common_.tokenizer = spec.tokenizer;
    common_.original_context_length = spec.original_context_length;
    common_.rope = spec.rope;
    common_.gpu_types = spec.gpu_types;
    common_.queue = spec.queue;
    common_.priority = spec.priority;
    common_.max_retries = spec.max_retries;
    common_.max_headless = spec.max_headless;
    common_.ttl_after_finished = spec.ttl_after_finished;
    common_.deadline = spec.deadline;
    common_.notify = spec.notify;
    common_.labels = spec.labels;
  }

  void Train(int64_t length, int64_t steps) {
    JobSpec job = spec_;
    job.stages.clear();
    job.stage_steps.clear();
    job.gate.reset();
    job.kind = "train";
    job.context_length = length;
    if (job.max_seq_length) job.max_seq_length = std::min(*job.max_seq_length, length);
    job.max_steps = steps;
    if (!train_.empty()) {
      job.job = train_;
      job.adapter.reset();
      job.after_any.clear();
    }
    train_ = Add(absl::StrCat(length, "-train"), absl::StrCat(length), std::move(job));
    before_ = {train_};
  }

  // After Train of that length; the next stage waits for it too.
  void Evaluate(int64_t length, const std::string& task, const std::vector<Gate>& gates) {
    JobSpec job = common_;
    job.kind = "eval";
    job.job = train_;
    job.eval_task = task;
    job.gate = GateKey(gates);
    job.gpus = spec_.gpus;
    job.precision = spec_.precision;
    job.eval_context_size = length;
    if (task == "perplexity") {
      job.eval_data = spec_.eval_data ? spec_.eval_data : spec_.data;
      job.eval_seq_len = std::min(spec_.eval_seq_len.value_or(length), length);
      job.eval_sliding_window = spec_.eval_sliding_window;
      job.eval_mode = spec_.eval_mode;
    } else {
      job.eval_num_tests = spec_.eval_num_tests;
      (task == "passkey" ? job.passkey_lengths : job.topic_lengths) = {length};
      if (task == "passkey") job.passkey_depths = spec_.passkey_depths;
      if (task == "topics") job.topic_prompt = spec_.topic_prompt;
    }
    const std::vector<std::string> before = std::exchange(before_, {train_});
    const std::string name = Add(absl::StrCat(length, "-", task), absl::StrCat(length), job);
    before_ = before;
    before_.push_back(name);
  }

  void Merge() {
    JobSpec job = common_;
    job.kind = "merge";
    job.job = train_;
    job.merge_out = spec_.merge_out;
    job.merge_dtype = spec_.merge_dtype;
    job.merge_onto = spec_.merge_onto;
    Add("merge", "merge", std::move(job));
  }

  std::vector<StageJob> Take() { return std::move(jobs_); }

 private:
  std::string Add(const std::string& name, const std::string& stage, JobSpec job) {
    job.name = absl::StrCat(graph_, "-", name);
    job.after = before_;
    job.labels[kGraphLabel] = graph_;
    job.labels[kStageLabel] = stage;
    jobs_.push_back({name, std::move(job)});
    return name;
  }

  const JobSpec& spec_;
  const std::string graph_;
  JobSpec common_;                   // what evaluations and the merge take over
  std::vector<std::string> before_;  // what the next member waits for
  std::string train_;                // the newest training member
  std::vector<StageJob> jobs_;
};

}  // namespace

absl::Status CheckStages(const JobSpec& spec) {
  if (spec.gate) LL_RETURN_IF_ERROR(CheckGate(spec));
  if (spec.stages.empty()) {
    if (spec.stage_steps.empty()) return absl::OkStatus();
    return MakeFieldError({"stage_steps", "nothing without stages", "a list"});
  }
  if (spec.kind.value_or("train") != "train") {
    return MakeFieldError(
        {"stages", absl::StrCat("nothing for a job of kind ", *spec.kind), "a list"});
  }
  LL_RETURN_IF_ERROR(CheckStageLengths(spec));
  for (const char* label : {kGraphLabel, kStageLabel}) {
    if (spec.labels.count(label) == 0) continue;
    return MakeFieldError({"labels", absl::StrCat("none named ", label, ", which stages set"),
                           spec.labels.at(label)});
  }
  return CheckStageSteps(spec);
}

absl::StatusOr<std::vector<StageJob>> ExpandStages(const JobSpec& spec) {
  LL_RETURN_IF_ERROR(CheckStages(spec));
  std::vector<Gate> gates;
  if (spec.gate) {
    LL_ASSIGN_OR_RETURN(gates, ParseGates(*spec.gate));
  }
  const std::vector<int64_t> steps = StepsOf(spec);
  Expansion expansion(spec);
  for (size_t i = 0; i < spec.stages.size(); ++i) {
    expansion.Train(spec.stages[i], steps[i]);
    for (const char* task : kTasks) {
      std::vector<Gate> of_task;
      std::copy_if(gates.begin(), gates.end(), std::back_inserter(of_task),
                   [task](const Gate& gate) { return TaskOfGate(gate) == task; });
      if (!of_task.empty()) expansion.Evaluate(spec.stages[i], task, of_task);
    }
  }
  expansion.Merge();
  return expansion.Take();
}

}  // namespace ll
