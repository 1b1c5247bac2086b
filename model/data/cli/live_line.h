// The progress of packing: one line that is rewritten on a terminal, a line now and then elsewhere.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "model/data/cli/data_commands.h"
#include "model/data/pack.h"

namespace ll {

// Not thread-safe.
class LiveLine {
 public:
  explicit LiveLine(const DataTalk& talk);
  ~LiveLine();  // takes the line away

  void Show(const PackProgress& progress);
  // A line that stays.
  void Say(const std::string& text);

 private:
  void Clear();

  const DataTalk talk_;
  const absl::Time start_;
  absl::Time shown_;
  int64_t first_bytes_ = -1;  // done before this run
  bool visible_ = false;
};

}  // namespace ll
