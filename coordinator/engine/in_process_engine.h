// For tests: an engine without sessions of its own. Its workers are ModelWorkers in this process.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "coordinator/engine/model_worker.h"

namespace ll {

class InProcessEngine : public Engine {
 public:
  // `number` as Engines::Add counts.
  InProcessEngine(int number, EventSink sink) : numbers_(number), sink_(std::move(sink)) {}

  // Connects a worker, which lives on where it is known; its earlier session, if any, is over.
  // The pointer is good as long as the engine.
  ModelWorker* Connect(const std::string& name, int slots);
  void Disconnect(const std::string& name);

  // Engine
  void Deliver(const Send& send, int64_t term) override;
  void EndAllSessions(const absl::Status& why) override;

 private:
  struct Entry {
    std::unique_ptr<ModelWorker> worker;
    uint64_t session = 0;  // 0: not connected
  };
  void Drop(const std::string& name, Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  SessionNumbers numbers_ ABSL_GUARDED_BY(mu_);
  const EventSink sink_;
  std::map<std::string, Entry> workers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
