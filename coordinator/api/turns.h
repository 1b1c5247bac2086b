// Who has much to send takes turns.
//
// A stream that tells what happens sends a message now and then. One that begins with the history
// of a long job has tens of thousands, and a hundred readers who ask for it at once would keep
// every core from the calls that others make. So a stream sends freely until it has sent one turn's
// worth without a pause; then it queues for the next turn, and turns come at a pace that costs
// about half the cores.
#pragma once

#include <deque>
#include <memory>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/steady_cond_var.h"

namespace ll {

class TurnTaker {
 public:
  virtual ~TurnTaker() = default;
  // Thread-safe; must not block.
  virtual void OnTurn() = 0;
};

// Thread-safe. Has a thread of its own, which calls OnTurn.
class Turns {
 public:
  // So many turns a second; after a pause, `saved` of them at once.
  Turns(double per_second, double saved);
  ~Turns();
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  // First come, first served; does not block. Who is gone when its turn comes is passed over.
  void Await(std::weak_ptr<TurnTaker> who);

  // What a message of so many bytes uses of a turn's kTurn: a step's event 1, a piece of a log 17.
  static constexpr int kTurn = 64;
  static int CostOf(size_t bytes) { return 1 + static_cast<int>(bytes / 4096); }

 private:
  void Run();

  const double per_second_, most_;
  absl::Mutex mu_;
  SteadyCondVar changed_;
  std::deque<std::weak_ptr<TurnTaker>> queue_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ll
