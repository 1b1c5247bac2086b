#include "coordinator/tracker_feed.h"

#include <google/protobuf/text_format.h>

#include <algorithm>

#include "base/log.h"
#include "base/status_macros.h"
#include "proto/job.pb.h"
#include "rpc/metric_families.h"
#include "tracker/mlflow.h"
#include "tracker/otlp.h"
#include "tracker/tensorboard.h"

namespace ll {
namespace {

using google::protobuf::FieldDescriptor;

std::string ValueText(const v1::JobSpec& spec, const FieldDescriptor& field, int index) {
  const auto& reflection = *spec.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    return index < 0 ? reflection.GetString(spec, &field)
                     : reflection.GetRepeatedString(spec, &field, index);
  }
  std::string text;
  google::protobuf::TextFormat::PrintFieldValueToString(spec, &field, index, &text);
  return text;
}

std::shared_ptr<const TrackedJob> TrackedOf(const Job& job) {
  auto tracked = std::make_shared<TrackedJob>();
  tracked->id = job.id.value();
  tracked->name = job.spec.name;
  tracked->user = job.user;
  tracked->queue = job.spec.queue.empty() ? kDefaultQueue : job.spec.queue;
  tracked->kind = job.spec.kind;
  tracked->submitted = job.submitted;
  tracked->labels.assign(job.spec.labels.begin(), job.spec.labels.end());
  if (job.payload != nullptr) tracked->params = SpecParams(job.payload->resolved_spec);
  return tracked;
}

TrackerEvent StepEvent(const StepFacts& step) {
  TrackerEvent event;
  event.kind = TrackerEvent::Kind::kStep;
  event.time = step.time;
  event.epoch = step.epoch;
  event.step = step.step;
  event.step_seconds = step.step_seconds;
  event.values = {{"loss", step.loss},
                  {"grad_norm", step.grad_norm},
                  {"learning_rate", step.learning_rate},
                  {"tokens_per_second", step.tokens_per_second},
                  {"step_seconds", step.step_seconds},
                  {"peak_bytes", static_cast<double>(step.peak_bytes)}};
  if (step.mfu.has_value()) event.values.emplace_back("mfu", *step.mfu);
  event.phases = step.phases;
  return event;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> SpecParams(const std::string& resolved_spec) {
  std::vector<std::pair<std::string, std::string>> params;
  v1::JobSpec spec;
  if (!spec.ParseFromString(resolved_spec)) return params;
  std::vector<const FieldDescriptor*> fields;
  spec.GetReflection()->ListFields(spec, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->is_map()) continue;  // labels
    std::string text;
    if (!field->is_repeated()) {
      text = ValueText(spec, *field, -1);
    } else {
      for (int i = 0; i < spec.GetReflection()->FieldSize(spec, field); ++i)
        text += (i > 0 ? "," : "") + ValueText(spec, *field, i);
    }
    params.emplace_back(field->name(), text);
  }
  return params;
}

absl::StatusOr<std::vector<std::unique_ptr<Tracker>>> MakeTrackers(const TrackerOptions& options,
                                                                   const std::string& version,
                                                                   HttpTransport& transport) {
  std::vector<std::unique_ptr<Tracker>> trackers;
  if (!options.tensorboard_dir.empty())
    trackers.push_back(std::make_unique<TensorBoardTracker>(options.tensorboard_dir));
  if (!options.mlflow.empty()) {
    LL_ASSIGN_OR_RETURN(HttpTarget target, MakeHttpTarget("mlflow", options.mlflow,
                                                          options.mlflow_headers, transport));
    trackers.push_back(
        std::make_unique<MlflowTracker>(std::move(target), options.mlflow_experiment));
  }
  if (!options.otlp_endpoint.empty()) {
    LL_ASSIGN_OR_RETURN(HttpTarget target, MakeHttpTarget("otlp-endpoint", options.otlp_endpoint,
                                                          options.otlp_headers, transport));
    trackers.push_back(std::make_unique<OtlpTracker>(std::move(target), version));
  }
  return trackers;
}

TrackerFeed::TrackerFeed(std::vector<std::unique_ptr<Tracker>> trackers,
                         TrackerQueue::Options queue, prometheus::Registry& registry, Clock& clock)
    : clock_(clock) {
  CounterFamily& events = CounterOf(
      registry, "ll_tracker_events_total",
      "Events for a tracker (tensorboard, mlflow, otlp) by outcome: sent, or lost because "
      "it is out of reach or too slow.");
  CounterFamily& failures =
      CounterOf(registry, "ll_tracker_failures_total", "Calls to a tracker that failed.");
  for (std::unique_ptr<Tracker>& tracker : trackers) {
    const std::string name = tracker->name();
    auto& sent = events.Add({{"tracker", name}, {"outcome", "sent"}});
    auto& lost = events.Add({{"tracker", name}, {"outcome", "lost"}});
    auto& failed = failures.Add({{"tracker", name}});
    TrackerQueue::Report report;
    report.lost = [&lost](size_t count) { lost.Increment(static_cast<double>(count)); };
    // The first of a row of failures is logged, so that a tracker that is away fills no disk.
    auto failing = std::make_shared<bool>(false);
    report.failure = [&failed, name, failing](const absl::Status& status) {
      failed.Increment();
      if (!*failing) {
        LL_LOG(kWarning) << "tracker " << name << ": " << status.message();
      }
      *failing = true;
    };
    report.sent = [&sent, failing](size_t count) {
      *failing = false;
      sent.Increment(static_cast<double>(count));
    };
    queues_.push_back(std::make_unique<TrackerQueue>(std::move(tracker), queue, std::move(report)));
  }
}

void TrackerFeed::Tell(const TrackerEvent& event) {
  for (const auto& queue : queues_) queue->Tell(event);
}

void TrackerFeed::TellTransitions(const Job& job, bool replayed) {
  Known& known = known_[job.id];
  if (known.job == nullptr) known.job = TrackedOf(job);
  const auto kept = static_cast<int64_t>(job.history.size());
  const int64_t fresh = std::min(kept, job.transitions - known.told);
  known.told = job.transitions;
  for (int64_t i = kept - fresh; i < kept; ++i) {
    const Transition& transition = job.history[static_cast<size_t>(i)];
    TrackerEvent event;
    event.job = known.job;
    event.time = transition.time;
    event.epoch = transition.epoch;
    event.replayed = replayed;
    event.state = v1::JobState_Name(static_cast<v1::JobState>(transition.state));
    event.reason = transition.reason;
    Tell(event);
    if (!IsEndState(event.state)) continue;
    ended_.push_back(job.id);
    if (ended_.size() <= kEndedJobs) continue;
    known_.erase(ended_.front());
    ended_.pop_front();
  }
}

void TrackerFeed::OnRecovered(const Scheduler& scheduler) {
  absl::MutexLock lock(&mu_);
  for (const Job* job : scheduler.List({.limit = SIZE_MAX})) {
    if (!IsTerminal(job->state)) TellTransitions(*job, /*replayed=*/true);
  }
}

void TrackerFeed::OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {
  absl::MutexLock lock(&mu_);
  for (const JobId& id : jobs) {
    const Job* job = scheduler.Find(id);
    // What ended before this process came is not told again when only its record changes.
    if (job == nullptr || (IsTerminal(job->state) && known_.count(id) == 0 && job->transitions > 1))
      continue;
    TellTransitions(*job, /*replayed=*/false);
  }
}

void TrackerFeed::OnDeleted(const JobId& job) {
  absl::MutexLock lock(&mu_);
  known_.erase(job);
  std::erase(ended_, job);
}

void TrackerFeed::OnNews(const JobId& job, const TelemetryNews& news) {
  absl::MutexLock lock(&mu_);
  const auto found = known_.find(job);
  if (found == known_.end()) return;
  Known& known = found->second;
  for (const StepFacts& step : news.steps) {
    TrackerEvent event = StepEvent(step);
    event.job = known.job;
    known.epoch = step.epoch;
    known.step = step.step;
    Tell(event);
  }
  TrackerEvent evaluation;
  if (news.eval_perplexity.has_value())
    evaluation.values.emplace_back("perplexity", *news.eval_perplexity);
  if (news.eval_effective_context_length.has_value())
    evaluation.values.emplace_back("effective_context_length", *news.eval_effective_context_length);
  if (evaluation.values.empty()) return;
  evaluation.kind = TrackerEvent::Kind::kEvaluation;
  evaluation.job = known.job;
  evaluation.time = clock_.Now();
  evaluation.epoch = known.epoch;
  evaluation.step = known.step;
  Tell(evaluation);
}

}  // namespace ll
