// Gathers what a scheduled run tells of itself once its job has ended, and hands it to the core,
// which compares it with the last good run (core/verdict.h).
//
// The measures are those of the job's result and, where that has none, of its telemetry: the loss
// curve, the newest evaluation. Of a training in stages: of the last stage that trains, with the
// perplexity of the last evaluation that tells one. Telemetry may arrive after the job's end, so it
// is waited for, at most kSettle. What a crash interrupts is done again: the core knows which runs
// were not judged.
#pragma once

#include <deque>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {

// `result` is Job::result. `settled` tells whether the telemetry reaches to the job's end.
RunMeasures MeasuresOf(const std::string& result, const Telemetry& telemetry, const JobId& job,
                       bool* settled);

// What a run's job told, when it has succeeded.
struct JudgedJob {
  JobId id;
  std::string kind;    // as CoreSpec::kind
  std::string result;  // Job::result
};
// Of a run's jobs, in their order.
RunMeasures MeasuresOfRun(const std::vector<JudgedJob>& jobs, const Telemetry& telemetry,
                          bool* settled);

// A listener of the driver. Thread-safe.
class RunJudge : public DriverListener {
 public:
  static constexpr absl::Duration kSettle = absl::Seconds(30);

  // Both outlive this, which outlives the driver's Stop().
  RunJudge(Driver& driver, const Telemetry& telemetry, Clock& clock);
  ~RunJudge() override;

  void OnTick(const Scheduler& scheduler) override;

 private:
  struct Task {
    RunKey key;
    std::vector<JudgedJob> jobs;  // empty: it did not succeed
    absl::Time finished;
  };
  void Loop();
  void Do(const Task& task);
  void Forget(const RunKey& key);

  Driver& driver_;
  const Telemetry& telemetry_;
  Clock& clock_;
  absl::Mutex mu_;
  absl::CondVar wake_;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mu_);
  std::set<RunKey> taken_ ABSL_GUARDED_BY(mu_);  // queued or under way
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // reading a long history is not for the driver's thread
};

}  // namespace ll
