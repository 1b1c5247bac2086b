// Tells configured endpoints what became of jobs, at least once and in each job's order.
//
//   driver ── OnChanged, after the commit ──▶ mailbox of an endpoint ── its thread ──▶ PostWebhook
//                                                    ▲                                    │ 2xx
//                                                    └────────── DeliveryLog ◀────────────┘
//
// A job's next message waits until the one before was taken or given up; other jobs' go on. A
// message that was sent but not yet noted when the process died is sent again, under the same id.
// What waits is made anew from the jobs' histories at the next start; of a job whose record goes it
// is kept in the log before.
// The coordinator that leads sends.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"
#include "coordinator/runtime/driver_loop.h"
#include "coordinator/webhooks/delivery_log.h"
#include "coordinator/webhooks/endpoint.h"
#include "coordinator/webhooks/sender.h"
#include "rpc/metric_families.h"

namespace ll {

// {"id": …, "type": "job.succeeded", …}; `number` counts the job's transitions from 0.
WebhookMessage MessageOf(const Job& job, int64_t number, const Transition& transition);

struct NotifierOptions {
  WebhookEndpoints endpoints;
  absl::Duration first_backoff = absl::Seconds(1), longest_backoff = absl::Minutes(10);
  // Of one endpoint; what comes beyond is taken up again after the next start of the coordinator.
  size_t most_waiting = 100'000;
};

// One endpoint's messages and the thread that sends them. Thread-safe.
class Mailbox {
 public:
  Mailbox(WebhookEndpoint endpoint, const NotifierOptions& options, DeliveryLog& log, Clock& clock,
          std::function<bool()> leads, prometheus::Registry& registry);
  ~Mailbox();  // ends the thread; a message under way may have arrived

  const WebhookEndpoint& endpoint() const { return endpoint_; }
  // Begins anew with what the log knows, and `kept` of jobs that are gone; nothing is sent before.
  void Restart(absl::Time since, std::map<std::string, int64_t> done,
               const std::vector<KeptWebhook>& kept);
  // Forgets what waits: this coordinator does not lead, or does not know what was sent.
  void Pause();
  // Takes up what is new of the job.
  void Note(const Job& job);
  // Adds what waits of a job whose record is about to go.
  void Keep(const std::string& job, std::vector<KeptWebhook>& kept);
  // The record is gone. What waits of it is still told.
  void Forget(const std::string& job);
  void UpdateMetrics();

 private:
  struct Waiting {
    int64_t number = 0;
    absl::Time time;
    WebhookMessage message;
  };
  struct Queue {
    std::deque<Waiting> waiting;
    int failures = 0;
    absl::Duration due = absl::ZeroDuration();
  };

  void Run();
  void ForgetGone();
  // The job whose message is due; empty: none, look again at `*next`.
  std::string Due(absl::Duration now, absl::Duration* next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Deliver(const std::string& job, Waiting message);
  void Taken(const std::string& job, const Waiting& message, absl::string_view result);
  absl::Duration Backoff(int failures) const;

  const WebhookEndpoint endpoint_;
  const NotifierOptions& options_;
  DeliveryLog& log_;
  Clock& clock_;
  const std::function<bool()> leads_;
  CounterFamily& deliveries_;
  prometheus::Gauge &waiting_gauge_, &oldest_gauge_;
  std::atomic<bool> stop_ = false;

  absl::Mutex mu_;
  SteadyCondVar changed_;
  bool active_ ABSL_GUARDED_BY(mu_) = false;
  absl::Time since_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int64_t> known_ ABSL_GUARDED_BY(mu_);  // by job: transitions looked at
  std::map<std::string, Queue> queues_ ABSL_GUARDED_BY(mu_);   // of jobs with waiting messages
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::string> gone_ ABSL_GUARDED_BY(mu_);  // jobs that the log may forget
  int failures_ ABSL_GUARDED_BY(mu_) = 0;               // in a row without any answer
  absl::Duration quiet_until_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
  std::thread thread_;
};

// Thread-safe.
class Notifier : public DriverListener {
 public:
  // `leads`: whether this coordinator may send; asked on other threads.
  Notifier(NotifierOptions options, std::unique_ptr<DeliveryLog> log, Clock& clock,
           std::function<bool()> leads, prometheus::Registry& registry);

  const WebhookEndpoints& endpoints() const { return options_.endpoints; }

  // DriverListener
  void OnRecovered(const Scheduler& scheduler) override;
  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration took) override;
  void OnDeleted(const JobId& job) override;
  void OnTick(const Scheduler& scheduler) override;
  void OnServing(const absl::Status& status) override;

 private:
  absl::Status Load(const Scheduler& scheduler);

  const NotifierOptions options_;
  const std::unique_ptr<DeliveryLog> log_;
  Clock& clock_;
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
  bool loaded_ = false;  // the driver's thread alone
  std::string last_error_;
};

}  // namespace ll
