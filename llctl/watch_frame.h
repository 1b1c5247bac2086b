// The live picture of a followed job: what `llctl watch` redraws on a terminal. Pure, not
// thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "llctl/live_screen.h"
#include "proto/job.pb.h"

namespace ll {

class WatchFrame {
 public:
  void TakeJob(const v1::Job& job);
  void TakeStep(const v1::StepRecord& step);
  // Why nothing new comes; empty: it does.
  void SetTrouble(std::string trouble) { trouble_ = std::move(trouble); }

  // The job's state, its progress with the time that is left, the newest step's numbers, and the
  // curve of the loss where the terminal has room for it. `width` and `height` 0: 80 by 24.
  std::vector<std::string> Lines(TerminalSize size, bool utf8, bool color) const;

 private:
  v1::Job job_;
  v1::Progress newest_;
  std::vector<std::pair<double, double>> loss_;  // by step, thinned when it grows long
  std::string trouble_;
};

}  // namespace ll
