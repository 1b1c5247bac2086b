// How an admitted training is to run on the workers that there are (model/plan/planner.h), and the
// memory of it: whoever submits the same model, context and method again is not kept waiting while
// thousands of plans are compared once more.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/registry.h>

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/core/types.h"
#include "coordinator/runtime/cluster_view.h"
#include "model/plan/config.h"
#include "model/plan/planner.h"
#include "model/plan/prices.h"
#include "model/spec/job_spec.h"
#include "proto/job.pb.h"

namespace ll {

// Everything that the answer follows from, beside the prices, which hold for the process' life.
struct PlanQuestion {
  std::shared_ptr<const LlamaConfig> config;  // not null
  JobSpec given, resolved;        // without the keys that no plan depends on (StripForPlan)
  std::vector<Cluster> clusters;  // slots by kind, as they were measured
  bool any_worker = false;        // false: `clusters` is the catalogue
  bool operator==(const PlanQuestion& other) const;
};
size_t HashOf(const PlanQuestion& question);

struct PlanAnswer {
  absl::Status refused;              // nothing holds the job, or no device can run it
  std::optional<ParallelPlan> plan;  // nullopt: nothing was planned, `forecast` says why
  bool trainer_chooses_recompute = false;
  absl::Duration duration = absl::InfiniteDuration();  // infinite: not known
  int64_t required_slot_bytes = 0;
  std::vector<std::string> slot_kinds;  // empty: any
  v1::Forecast forecast;
};

// Takes the keys out that change no plan: a hundred jobs that differ in name, seed, data, queue or
// dependencies ask the same question.
void StripForPlan(JobSpec& spec);

// The slots of the known workers by kind; of none, the catalogue's devices on usual hosts, enough
// of each for `gpus`.
std::vector<Cluster> SlotsByKind(const ClusterView& view, int64_t gpus);

// A worker that does not tell its slots' memory, so that nothing can be planned; "": all do.
std::string WorkerThatTellsNoMemory(const ClusterView& view);

// Chooses the plan. Pure, thread-safe. Up to tens of milliseconds: 70B on a thousand GPUs.
PlanAnswer AnswerOf(const PlanQuestion& question, const Prices& prices);

// Answers that were given, the least recently used forgotten first. Thread-safe; two that ask the
// same new question at once both work it out.
class PlanCache {
 public:
  // Counts its hits and misses in `registry`. An answer has a few kilobytes, but where a submit
  // brought a model's config along it holds that as well: `most_bytes` of all, about.
  explicit PlanCache(prometheus::Registry& registry, size_t most = 512,
                     size_t most_bytes = 16 << 20);
  PlanCache(const PlanCache&) = delete;

  std::shared_ptr<const PlanAnswer> Ask(PlanQuestion question, const Prices& prices);

 private:
  struct Entry {
    PlanQuestion question;
    std::shared_ptr<const PlanAnswer> answer;
    size_t bytes = 0;
  };
  struct Hash {
    size_t operator()(const PlanQuestion* question) const { return HashOf(*question); }
  };
  struct Same {
    // A question with a NaN in it equals itself alone.
    bool operator()(const PlanQuestion* a, const PlanQuestion* b) const {
      return a == b || *a == *b;
    }
  };

  PlanCache(prometheus::Family<prometheus::Counter>& lookups, size_t most, size_t most_bytes);

  prometheus::Counter &hits_, &misses_;
  const size_t most_, most_bytes_;
  absl::Mutex mu_;
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mu_);  // the last used first
  absl::flat_hash_map<const PlanQuestion*, std::list<Entry>::iterator, Hash, Same> places_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
