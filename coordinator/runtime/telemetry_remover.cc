#include "coordinator/runtime/telemetry_remover.h"

#include <utility>

namespace ll {

TelemetryRemover::TelemetryRemover(Telemetry& telemetry)
    : telemetry_(telemetry), thread_([this] { Run(); }) {}

TelemetryRemover::~TelemetryRemover() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void TelemetryRemover::OnRecovered(const Scheduler& scheduler) {
  telemetry_.ForgetFacts();
  const auto known = [&](const JobId& job) { return scheduler.Find(job) != nullptr; };
  for (const JobId& job : telemetry_.Others(known)) OnDeleted(job);
}

void TelemetryRemover::OnDeleted(const JobId& job) {
  absl::MutexLock lock(&mu_);
  doomed_.push_back(job);
}

void TelemetryRemover::Run() {
  while (true) {
    JobId job;
    {
      absl::MutexLock lock(&mu_);
      const auto work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
        return stopping_ || !doomed_.empty();
      };
      mu_.Await(absl::Condition(&work));
      if (stopping_) return;
      job = std::move(doomed_.front());
      doomed_.pop_front();
    }
    telemetry_.Remove(job);
  }
}

}  // namespace ll
