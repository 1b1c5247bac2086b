// OpenTelemetry traces of jobs, sent as OTLP/HTTP JSON:
//
//   job                         from its submission to its end
//   ├─ schedule                 each wait for slots
//   └─ attempt N                from the order to start to the end of its ranks
//      ├─ launch                until every rank trains
//      └─ step                  each optimizer step, with its loss and where its time went
//
// Ids come from the job's id alone, so that spans of a coordinator that took over hang in the same
// tree. A span is sent when it has ended.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "nlohmann/json.hpp"
#include "tracker/http_target.h"
#include "tracker/tracker.h"

namespace ll {

struct Span {
  std::string trace_id, id, parent_id;  // 32, 16, 16 hex digits; no parent: empty
  std::string name;
  absl::Time start, end;
  std::vector<std::pair<std::string, std::string>> texts;
  std::vector<std::pair<std::string, double>> numbers;
  std::string error;  // why it did not end well; empty: it did
};

// Spans out of events. Pure; one thread.
class TraceBuilder {
 public:
  // The spans that this event ends; none of a replayed one.
  std::vector<Span> Take(const TrackerEvent& event);

 private:
  struct Open {
    absl::Time waits_since = absl::InfinitePast();
    absl::Time attempt_began = absl::InfinitePast();
    bool launched = false;
    int64_t epoch = 0;
    int64_t waits = 0;  // so far: the number of the newest
  };
  void TakeState(const TrackerEvent& event, std::vector<Span>& out);
  std::map<std::string, Open> open_;  // by job
};

// The body of an export request.
nlohmann::ordered_json OtlpJson(const std::vector<Span>& spans, const std::string& version);

class OtlpTracker : public Tracker {
 public:
  // Posts to ENDPOINT/v1/traces, where the target's path is that of ENDPOINT.
  OtlpTracker(HttpTarget target, std::string version)
      : target_(std::move(target)), version_(std::move(version)) {}
  std::string name() const override { return "otlp"; }
  absl::Status Take(const std::vector<TrackerEvent>& batch) override;
  void Cancel() override { *target_.cancelled = true; }

 private:
  const HttpTarget target_;
  const std::string version_;
  TraceBuilder builder_;
  std::vector<Span> unsent_;  // of a batch that is given again
};

}  // namespace ll
