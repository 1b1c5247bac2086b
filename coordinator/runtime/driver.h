// The coordinator's only loop: takes events from a queue, lets the scheduler decide, makes the
// decisions durable, and only then sends orders and gives answers.
//
// Group commit: all events that wait are decided one after the other and written in one
// transaction. When the transaction fails nobody has seen anything of it: every answer of that
// batch is the failure, the scheduler is thrown away and built anew from the store, and all agent
// sessions end, so that agents come back and repeat what was not acknowledged.
//
// Reads go through the same queue and see only what is durable.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/ids.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/runtime/cluster_view.h"
#include "coordinator/store/store.h"

namespace ll {

// Where orders go. Called on the driver's thread; must not block.
class AgentGateway {
 public:
  virtual ~AgentGateway() = default;
  virtual void Deliver(const Send& send, int64_t term) = 0;
  virtual void EndAllSessions(const absl::Status& why) = 0;
};

// Who wants to know what happened, after it is durable. Called on the driver's thread; must not
// block.
class DriverListener {
 public:
  virtual ~DriverListener() = default;
  virtual void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) {}
  virtual void OnDeleted(const JobId& job) {}
  virtual void OnTick(const Scheduler& scheduler) {}
  virtual void OnStep(absl::Duration took) {}
  // Whether the store can be used; told at the start and after every failure and repair.
  virtual void OnServing(bool serving) {}
};

struct DriverOptions {
  SchedulerOptions scheduler;
  // Opens the store; called again after a failure that poisoned it.
  std::function<absl::StatusOr<std::unique_ptr<Store>>()> open_store;
  absl::Duration tick = absl::Seconds(1);
  // Users' requests that may wait; more are refused. Agents' events are bounded by one for each
  // session.
  size_t max_waiting_requests = 4096;
  // Events decided before the next commit. More: better throughput under load, longer first answer.
  size_t max_batch = 256;
};

// Thread-safe after Start.
class Driver {
 public:
  // `view` is null exactly when `reply.status` says that the driver could not decide or commit.
  using Answer = std::function<void(const Reply& reply, const Scheduler* view)>;
  using Reader = std::function<void(const absl::Status& status, const Scheduler* view)>;

  Driver(DriverOptions options, Clock& clock) : options_(std::move(options)), clock_(clock) {}
  ~Driver();

  // Before Start. The pointers must outlive Stop().
  void SetGateway(AgentGateway* gateway) { gateway_ = gateway; }
  void AddListener(DriverListener* listener) { listeners_.push_back(listener); }

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
  void Read(Reader reader);

  ClusterViewPtr cluster_view() const;
  int64_t term() const { return term_; }
  absl::Time started() const { return started_; }
  std::string store_description() const;
  // False while the store cannot be used.
  bool serving() const;

 private:
  struct Item {
    std::variant<Event, Reader> what;
    Answer answer;               // of a user's event
    std::function<void()> done;  // of an agent's event
  };
  struct Decided {
    Effects effects;
    Item* item = nullptr;  // null: the tick
  };

  bool Enqueue(Item item, bool bounded);
  void Loop();
  std::vector<Item> NextBatch();
  void RunBatch(std::vector<Item>& batch);
  void Publish(std::vector<Decided>& decided);
  void FailAll(std::vector<Item>& batch, const absl::Status& why);
  absl::Status Rebuild();
  Effects StepTimed(const Event& event);
  void RefreshView();
  StepTime Now() { return {clock_.Steady(), clock_.Now()}; }

  const DriverOptions options_;
  Clock& clock_;
  AgentGateway* gateway_ = nullptr;
  std::vector<DriverListener*> listeners_;

  // The loop's own.
  std::unique_ptr<Store> store_;
  std::optional<Scheduler> scheduler_;
  absl::Duration next_tick_ = absl::ZeroDuration();
  int64_t term_ = 0;
  absl::Time started_;
  std::thread thread_;

  mutable absl::Mutex mu_;
  absl::CondVar wake_;
  std::deque<Item> queue_ ABSL_GUARDED_BY(mu_);
  size_t waiting_requests_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  bool serving_ ABSL_GUARDED_BY(mu_) = false;
  std::string description_ ABSL_GUARDED_BY(mu_);
  ClusterViewPtr view_ ABSL_GUARDED_BY(mu_) = std::make_shared<ClusterView>();
};

}  // namespace ll
