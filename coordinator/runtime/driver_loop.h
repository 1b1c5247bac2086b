// What the coordinator does with a batch of events: lets the scheduler decide, makes the decisions
// durable, and only then sends orders and gives answers. No thread, queue or lock of its own: the
// Driver runs it on its thread, the simulator under simulated time.
//
// Group commit: all events of a batch are decided one after the other and written in one
// transaction. When the transaction fails nobody has seen anything of it: every answer of that
// batch is the failure, the scheduler is thrown away and built anew from the store, and all agent
// sessions end, so that agents come back and repeat what was not acknowledged.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
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
  // After every step, before its records are durable.
  virtual void OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration took) {}
  // After every commit of at least one record: how long it took and whether it is durable.
  virtual void OnCommit(absl::Duration took, bool durable) {}
  // The scheduler was built anew from the store: at the start and after a failure.
  virtual void OnRecovered(const Scheduler& scheduler) {}
  // Whether the store can be used, or why not; told at the start, after every failure and repair,
  // and at each vain attempt to repair.
  virtual void OnServing(const absl::Status& status) {}
  // Workers or registered models and data have changed.
  virtual void OnView(const ClusterViewPtr& view) {}
};

struct DriverOptions {
  SchedulerOptions scheduler;
  // Opens the store; called again after a failure that poisoned it, and after Store::Check failed.
  std::function<absl::StatusOr<std::unique_ptr<Store>>()> open_store;
  // Start succeeds although the store is Unavailable: it is opened as soon as that can be done.
  bool start_without_store = false;
  absl::Duration tick = absl::Seconds(1);
  // Users' requests that may wait; more are refused. Agents' events are bounded by one for each
  // session.
  size_t max_waiting_requests = 4096;
  // Events decided before the next commit. More: better throughput under load, longer first answer.
  size_t max_batch = 256;
};

// Not thread-safe.
class DriverLoop {
 public:
  // `view` is null exactly when `reply.status` says that the driver could not decide or commit.
  using Answer = std::function<void(const Reply& reply, const Scheduler* view)>;
  using Reader = std::function<void(const absl::Status& status, const Scheduler* view)>;
  // The term is to be above `above`: an agent has obeyed that one (restored stores only).
  struct RaiseTermAbove {
    int64_t above = 0;
  };
  struct Item {
    std::variant<Event, Reader, RaiseTermAbove> what;
    Answer answer;               // of a user's event
    std::function<void()> done;  // of an agent's event, or of a raised term
  };

  DriverLoop(DriverOptions options, Clock& clock) : options_(std::move(options)), clock_(clock) {}

  // Before Start. The pointers must outlive this.
  void SetGateway(AgentGateway* gateway) { gateway_ = gateway; }
  void AddListener(DriverListener* listener) { listeners_.push_back(listener); }

  // Opens the store, raises the term and recovers. Errors are the store's.
  absl::Status Start();
  // Decides, commits, sends and answers; with the tick where it is due. An unusable store is opened
  // again at most once a tick; until then every answer is the failure.
  void Run(std::vector<Item>& batch);
  // Answers all with `why`.
  static void FailAll(std::vector<Item>& batch, const absl::Status& why);

  // Steady time; Run is to be called then, with an empty batch where nothing else waits.
  absl::Duration next_tick() const { return next_tick_; }
  // Run opens an unusable store, or looks after the one at hand, without waiting for the tick.
  void Hurry() { next_tick_ = clock_.Steady(); }
  // Thread-safe.
  int64_t term() const { return term_; }
  // The store was put back from a backup: terms above it exist.
  bool restored() const { return restored_; }
  absl::Time started() const { return started_; }
  // Null while the store cannot be used.
  const Scheduler* scheduler() const { return scheduler_.has_value() ? &*scheduler_ : nullptr; }
  std::string store_description() const { return store_ == nullptr ? "" : store_->Description(); }

 private:
  struct Decided {
    Effects effects;
    Item* item = nullptr;  // null: the tick
  };

  absl::Status RaiseTerms(std::vector<Item>& batch);
  void GiveUp(std::vector<Item>& batch, const absl::Status& why);
  absl::Status Commit(std::vector<Item>& batch, const std::vector<Record>& records);
  void Publish(std::vector<Decided>& decided);
  // Before anything is decided or read: whether this store may still be believed.
  void StepDownUnlessCurrent();
  // `again`: opens the store anew where the one at hand cannot be read.
  absl::Status Rebuild(bool again);
  Effects StepTimed(const Event& event, bool pass = true);
  void NoteRecords(const std::vector<Record>& records);
  void RefreshView();
  StepTime Now() { return {clock_.Steady(), clock_.Now()}; }

  const DriverOptions options_;
  Clock& clock_;
  AgentGateway* gateway_ = nullptr;
  std::vector<DriverListener*> listeners_;
  std::unique_ptr<Store> store_;
  std::optional<Scheduler> scheduler_;
  absl::Duration next_tick_ = absl::ZeroDuration();
  std::atomic<int64_t> term_ = 0;
  std::atomic<bool> restored_ = false;
  absl::Time started_;
  absl::Status unusable_;  // why there is no store
};

}  // namespace ll
