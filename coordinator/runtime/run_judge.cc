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
    Task task{key, run.job};
    if (const Job* job = scheduler.Find(run.job); job != nullptr) {
      task.succeeded = job->state == JobState::kSucceeded;
      task.result = job->result;
      task.finished = job->finished;
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
  RunMeasures measures;
  bool settled = true;
  if (task.succeeded) measures = MeasuresOf(task.result, telemetry_, task.job, &settled);
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
