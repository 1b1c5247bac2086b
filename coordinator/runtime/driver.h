// The coordinator's only thread of decisions: takes events from a queue and hands them, in batches,
// to the loop (driver_loop.h), which decides, commits, sends and answers.
//
// Reads go through the same queue and see only what is durable.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"
#include "coordinator/runtime/driver_loop.h"

namespace ll {

// Thread-safe after Start.
class Driver : private DriverListener {
 public:
  using Answer = DriverLoop::Answer;
  using Reader = DriverLoop::Reader;

  Driver(DriverOptions options, Clock& clock);
  ~Driver() override;

  // Before Start. The pointers must outlive Stop().
  void SetGateway(AgentGateway* gateway) { loop_.SetGateway(gateway); }
  void AddListener(DriverListener* listener) { loop_.AddListener(listener); }

  // Opens the store, raises the term, recovers and starts the loop. Errors are the store's.
  absl::Status Start();
  // Answers what waits with UNAVAILABLE and joins the loop. Idempotent.
  void Stop();

  // A user's event. `answer` is called exactly once, on the driver's thread or, when the request is
  // refused at once (stopped, queue full), on the caller's.
  void Request(Event event, Answer answer);
  // An agent's event; never refused while the driver runs. `done` is called once the event is
  // decided and durable, or given up; may be null.
  void AgentEvent(Event event, std::function<void()> done);
  // Has the term raised above `above`; `done` is called then, or when that could not be done.
  void RaiseTermAbove(int64_t above, std::function<void()> done);
  void Read(Reader reader);
  // Has the store looked after at once: whether it can be used may have changed.
  void Hurry();

  ClusterViewPtr cluster_view() const;
  int64_t term() const { return loop_.term(); }
  bool restored() const { return loop_.restored(); }
  absl::Time started() const { return loop_.started(); }
  std::string store_description() const;
  // False while the store cannot be used, or another coordinator leads.
  bool serving() const { return Serving().ok(); }
  // Why not; with the leader's address where another leads (base/leader_error.h).
  absl::Status Serving() const;

 private:
  using Item = DriverLoop::Item;

  // DriverListener: what other threads ask for.
  void OnServing(const absl::Status& status) override;
  void OnView(const ClusterViewPtr& view) override;

  bool Enqueue(Item item, bool bounded);
  void Loop();
  std::vector<Item> NextBatch();

  const absl::Duration tick_;
  const size_t max_waiting_requests_, max_batch_;
  Clock& clock_;
  DriverLoop loop_;  // the thread's own once it runs
  std::thread thread_;

  mutable absl::Mutex mu_;
  SteadyCondVar wake_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mu_);
  size_t waiting_requests_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool hurry_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status serving_ ABSL_GUARDED_BY(mu_) =
      absl::UnavailableError("the coordinator is starting");
  std::string description_ ABSL_GUARDED_BY(mu_);
  ClusterViewPtr view_ ABSL_GUARDED_BY(mu_) = std::make_shared<ClusterView>();
};

}  // namespace ll
