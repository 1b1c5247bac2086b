// What `llctl describe` tells of a job, from what the service keeps of it. Pure functions,
// thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "proto/jobs.pb.h"

namespace ll {

struct DescribedJob {
  v1::Job job;  // with history
  std::string why;
  std::vector<v1::CheckpointRecord> checkpoints;      // newest first
  std::vector<google::protobuf::Struct> evaluations;  // the trainer's `eval` events, in order
};

// One try to run the job.
struct Attempt {
  int64_t epoch = 0;
  absl::Time started = absl::InfinitePast();  // its first transition
  absl::Time ended = absl::InfiniteFuture();  // it still runs
  int64_t first_step = 0, last_step = 0;      // 0: no step of it counts
  std::string ended_as;                       // the state behind it: "RETRYING", "SUCCEEDED"
  std::string reason;
};
// From the transitions: what has an attempt's number, up to the state that gave its slots back.
std::vector<Attempt> AttemptsOf(const v1::Job& job);

// What is true of the job now, in one word, as other tools ask for it.
struct Condition {
  std::string type;    // "Scheduled"
  std::string status;  // "True", "False", "Unknown"
  std::string reason;  // a sentence
};
std::vector<Condition> ConditionsOf(const DescribedJob& described, absl::Time now);

// Sections of "Key:  value" lines and tables, as the page for people. `width` 0: no limit.
std::string DescribeText(const DescribedJob& described, absl::Time now, int width, bool color);

// {"job", "why", "conditions", "attempts", "evaluations", "checkpoints"}.
nlohmann::ordered_json DescribeJson(const DescribedJob& described, absl::Time now);

}  // namespace ll
