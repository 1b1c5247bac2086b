// Redraws a followed job's picture when something is new, at most four times a second: what comes
// in between, also thousands of steps at once, is drawn together. Its thread is the only one that
// writes to the terminal.
#pragma once

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/steady_cond_var.h"
#include "llctl/session.h"
#include "llctl/watch_frame.h"

namespace ll {

// Thread-safe.
class LivePicture {
 public:
  explicit LivePicture(Session& session);
  // Draws what is left to draw; the last picture stays.
  ~LivePicture();

  void TakeJob(const v1::Job& job);
  void TakeStep(const v1::StepRecord& step);
  void SetTrouble(const std::string& trouble);
  // A line that stays above the picture.
  void PrintAbove(const std::string& line);

 private:
  void Loop();

  Session& session_;
  absl::Mutex mu_;
  SteadyCondVar news_;  // changed_ or stop_ was set
  WatchFrame frame_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> above_ ABSL_GUARDED_BY(mu_);
  bool changed_ ABSL_GUARDED_BY(mu_) = false;
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace ll
