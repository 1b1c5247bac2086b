// Copies sealed checkpoints to an object store while training goes on. Torch-free.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/steady_cond_var.h"
#include "storage/object_store.h"
#include "worker/trainer/checkpoint/retention.h"

namespace ll {

// What became of a checkpoint that was offered.
struct CopyReport {
  int64_t step = 0;
  absl::Status status;  // Aborted: a newer one came before its copy was begun
  std::string uri;      // of the copy
  int64_t bytes = 0;    // that were sent
  double seconds = 0;
  std::vector<std::string> removed;  // prefixes that retention let go
};

// One copy is in flight and at most one waits: a store slower than training gets fewer checkpoints,
// the newest, and training never waits for it. Thread-safe.
class CheckpointCopier {
 public:
  // `report` runs on the copying thread or in Offer, and must be thread-safe.
  CheckpointCopier(std::unique_ptr<ObjectStore> store, int64_t epoch, Retention retention,
                   Clock& clock, std::function<void(const CopyReport&)> report);
  ~CheckpointCopier();  // cancels what is in flight

  // Copies the sealed checkpoint `folder` as soon as the one before is done; one that waits is
  // dropped for it. `epoch`: the attempt that wrote it, where it was not this one.
  void Offer(const std::string& folder, int64_t step, std::optional<int64_t> epoch = std::nullopt)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Waits until nothing is in flight or waits. DeadlineExceeded: it takes longer; it is cancelled,
  // and what was not copied is reported.
  absl::Status Finish(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);
  // Steps whose local folders are still needed.
  std::set<int64_t> InUse() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Wish {
    std::string folder;
    int64_t step = 0, epoch = 0;
  };
  void Loop() ABSL_LOCKS_EXCLUDED(mu_);
  CopyReport Copy(const Wish& wish);

  const std::unique_ptr<ObjectStore> store_;
  const int64_t epoch_;
  const Retention retention_;
  Clock& clock_;
  const std::function<void(const CopyReport&)> report_;
  mutable absl::Mutex mu_;
  SteadyCondVar done_;  // running_
  std::optional<Wish> waiting_ ABSL_GUARDED_BY(mu_), running_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  bool swept_ = false;  // what killed writers left; the thread's alone
  std::thread thread_;
};

}  // namespace ll
