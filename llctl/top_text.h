// What `llctl top` shows of one moment. Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "proto/admin.pb.h"
#include "proto/job.pb.h"

namespace ll {

struct TopSnapshot {
  std::string coordinator;  // its address
  absl::Time time;
  std::vector<v1::Worker> workers;
  std::vector<v1::Job> jobs;  // that have not ended
  std::string trouble;        // why this is not fresh; empty: it is
};

// A headline, the jobs that hold slots, and the slots. `width` 0: as wide as it is. `height` 0: all
// of it; otherwise the slots that do not fit are counted in the last line.
std::vector<std::string> TopLines(const TopSnapshot& snapshot, int width, int height, bool color);

// {"time", "workers": [...], "jobs": [...]}: the messages as `workers list` and `list` show them.
nlohmann::ordered_json TopJson(const TopSnapshot& snapshot);

// Where an attempt's newest step went, largest first: "forward 41 %, backward 52 %"; at most
// `parts`. Empty where it is not known.
std::string PhasesText(const v1::Progress& progress, size_t parts);

}  // namespace ll
