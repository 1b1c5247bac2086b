#include "coordinator/runtime/run_judge.h"

#include <google/protobuf/struct.pb.h>

#include <utility>

namespace ll {

RunMeasures MeasuresOf(const std::string& result, const Telemetry& telemetry, const JobId& job,
                       bool* settled) {
  RunMeasures measures;
  google::protobuf::Struct fields;
  fields.ParseFromString(result);
  const auto number = [&fields](const char* key) -> std::optional<double> {
    const auto field = fields.fields().find(key);
    if (field == fields.fields().end() ||
        field->second.kind_case() != google::protobuf::Value::kNumberValue)
      return std::nullopt;
    return field->second.number_value();
  };
  measures.final_loss = number("loss");
  measures.perplexity = number("perplexity");
  measures.tokens_per_second = number("tokens_per_second");
  if (const auto bytes = number("peak_bytes")) measures.peak_bytes = static_cast<int64_t>(*bytes);

  const Telemetry::History history = telemetry.HistoryOf(job);
  *settled = history.done;
  std::vector<CurvePoint> points;
  for (const StepFacts& step : history.steps) points.push_back({step.step, step.loss});
  measures.curve = ThinCurve(points);
  if (!measures.perplexity.has_value()) measures.perplexity = history.perplexity;
  if (!history.steps.empty() && !measures.final_loss.has_value())
    measures.final_loss = history.steps.back().loss;
  return measures;
}

RunMeasures MeasuresOfRun(const std::vector<JudgedJob>& jobs, const Telemetry& telemetry,
                          bool* settled) {
  RunMeasures measures;
  *settled = true;
  if (jobs.size() == 1) return MeasuresOf(jobs[0].result, telemetry, jobs[0].id, settled);
  for (const JudgedJob& job : jobs) {
    if (job.kind != "train" && job.kind != "eval") continue;
    bool all = true;
    RunMeasures of_job = MeasuresOf(job.result, telemetry, job.id, &all);
    *settled = *settled && all;
    if (job.kind == "train") {
      measures = std::move(of_job);
    } else if (of_job.perplexity.has_value()) {
      measures.perplexity = of_job.perplexity;
    }
  }
  return measures;
}

RunJudge::RunJudge(Driver& driver, const Telemetry& telemetry, Clock& clock)
    : driver_(driver), telemetry_(telemetry), clock_(clock), thread_([this] { Loop(); }) {}

RunJudge::~RunJudge() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    wake_.SignalAll();
  }
  thread_.join();
}

void RunJudge::OnTick(const Scheduler& scheduler) {
  if (scheduler.to_judge().empty()) return;
  absl::MutexLock lock(&mu_);
  for (const RunKey& key : scheduler.to_judge()) {
    if (!taken_.insert(key).second) continue;
    const ScheduleRun& run = scheduler.schedules().at(key.first).runs.at(key.second);
    Task task{key};
    const Job* last = scheduler.Find(run.job);
    if (last != nullptr) task.finished = last->finished;
    for (const JobId& id : JobIdsOf(run)) {
      const Job* job = scheduler.Find(id);
      if (job != nullptr && last != nullptr && last->state == JobState::kSucceeded)
        task.jobs.push_back({id, job->spec.kind, job->result});
    }
    tasks_.push_back(std::move(task));
    wake_.Signal();
  }
}

void RunJudge::Loop() {
  while (true) {
    Task task;
    {
      absl::MutexLock lock(&mu_);
      while (tasks_.empty() && !stopping_) wake_.Wait(&mu_);
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    Do(task);
  }
}

void RunJudge::Do(const Task& task) {
  bool settled = true;
  RunMeasures measures = MeasuresOfRun(task.jobs, telemetry_, &settled);
  // A clock that was set back would make it wait for long.
  const absl::Duration age = clock_.Now() - task.finished;
  if (!settled && age >= absl::ZeroDuration() && age < kSettle) return Forget(task.key);
  driver_.Request(JudgeRunEvent{task.key.first, task.key.second, std::move(measures)},
                  [this, key = task.key](const Reply&, const Scheduler*) { Forget(key); });
}

// The next tick brings it again where it still is to be judged.
void RunJudge::Forget(const RunKey& key) {
  absl::MutexLock lock(&mu_);
  taken_.erase(key);
}

}  // namespace ll
