// For tests: a worker that keeps the promises of engine.h with plain state machines instead of
// processes. Ranks are told to train and to end by the test.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "coordinator/engine/engine.h"

namespace ll {

// Thread-safe. `tell` is called with the lock held and must not call back.
class ModelWorker {
 public:
  using Order = decltype(Send::order);

  ModelWorker(std::string name, int slots) : name_(std::move(name)), slots_(slots) {}

  // A session begins: says Hello, and from its Welcome on tells what is not acknowledged.
  void Connect(uint64_t session, std::function<void(Event)> tell);
  // The session is over on this side; nothing more is told by it.
  void Disconnect();
  void Receive(const Order& order, int64_t term);

  // Every living rank of the job's newest attempt ends so.
  void End(const std::string& job, int code);
  // Ranks ever started, by (job, epoch).
  int started(const std::string& job, int64_t epoch) const;
  // Ranks that run now.
  int running() const;

 private:
  using Key = std::pair<JobId, int64_t>;
  struct Gang {
    std::map<int, int> ranks;          // rank → slot
    std::map<int, RankExit> exits;     // of those that have ended
    std::vector<ReportEvent> journal;  // report i has number i + 1
    int64_t acked = 0;
  };

  void Start(const StartGangOrder& order) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Exit(const Key& key, Gang& gang, int code, int signal, bool ordered)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Note(const Key& key, Gang& gang, int rank, decltype(ReportEvent::fact) fact)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Welcome(const WelcomeOrder& order) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string name_;
  const int slots_;
  mutable absl::Mutex mu_;
  uint64_t session_ ABSL_GUARDED_BY(mu_) = 0;
  bool welcomed_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void(Event)> tell_ ABSL_GUARDED_BY(mu_);
  int64_t term_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<JobId, int64_t> newest_epoch_ ABSL_GUARDED_BY(mu_);
  std::map<Key, Gang> gangs_ ABSL_GUARDED_BY(mu_);
  std::map<std::pair<std::string, int64_t>, int> started_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
