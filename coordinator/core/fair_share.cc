#include "coordinator/core/fair_share.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/counted.h"

namespace ll {

const std::string& QueueNameOf(const CoreSpec& spec) {
  static const std::string& default_queue = *new std::string(kDefaultQueue);
  return spec.queue.empty() ? default_queue : spec.queue;
}

LimitAnswer CheckLimits(const Queue& queue, int gpus, int more_gpus, int more_jobs) {
  const QueueRecord& record = queue.record;
  const int held = queue.gpus + more_gpus;
  if (record.max_gpus.has_value() && gpus > *record.max_gpus) {
    return {LimitAnswer::Kind::kNever,
            absl::StrCat("needs ", Counted(gpus, "GPU"), "; queue ", record.name,
                         " may never hold more than ", *record.max_gpus)};
  }
  if (record.max_jobs == 0) {
    return {LimitAnswer::Kind::kNever,
            absl::StrCat("may not start: queue ", record.name, " has max_jobs 0")};
  }
  if (record.max_gpus.has_value() && held + gpus > *record.max_gpus) {
    return {LimitAnswer::Kind::kWait,
            absl::StrCat("needs ", Counted(gpus, "GPU"), "; queue ", record.name, " holds ", held,
                         " of its ", *record.max_gpus)};
  }
  if (record.max_jobs.has_value() && queue.jobs + more_jobs >= *record.max_jobs) {
    return {LimitAnswer::Kind::kWait,
            absl::StrCat("waits for one of the ", queue.jobs + more_jobs, " jobs of queue ",
                         record.name, " to end, its max_jobs")};
  }
  const bool own = !record.quota_gpus.has_value() || held + gpus <= *record.quota_gpus;
  return {own ? LimitAnswer::Kind::kOwn : LimitAnswer::Kind::kBorrows, ""};
}

int RoomWithoutBorrowing(const Queue& queue, int more_gpus) {
  constexpr int kNoLimit = std::numeric_limits<int>::max();
  const int limit = std::min(queue.record.quota_gpus.value_or(kNoLimit),
                             queue.record.max_gpus.value_or(kNoLimit));
  return limit == kNoLimit ? kNoLimit : limit - queue.gpus - more_gpus;
}

Queue& FairShare::Declare(const QueueRecord& record) {
  Queue& queue = queues_[record.name];
  const std::map<std::string, double> used = std::move(queue.record.used);
  queue.record = record;
  queue.record.used = used;
  return queue;
}

Queue* FairShare::Find(const std::string& name) {
  auto it = queues_.find(name);
  return it == queues_.end() ? nullptr : &it->second;
}

const Queue* FairShare::Find(const std::string& name) const {
  auto it = queues_.find(name);
  return it == queues_.end() ? nullptr : &it->second;
}

Queue& FairShare::Of(const CoreSpec& spec) {
  const std::string& name = QueueNameOf(spec);
  Queue* queue = Find(name);
  return queue != nullptr ? *queue : Declare({name});
}

void FairShare::OnStart(const CoreSpec& spec, const std::string& kind, int gpus) {
  Queue& queue = Of(spec);
  queue.held[kind] += gpus;
  queue.gpus += gpus;
  ++queue.jobs;
}

void FairShare::OnEnd(const CoreSpec& spec, const std::string& kind, int gpus) {
  Queue& queue = Of(spec);
  queue.held[kind] -= gpus;
  queue.gpus -= gpus;
  --queue.jobs;
  LL_CHECK(queue.held[kind] >= 0 && queue.jobs >= 0);
  if (queue.held[kind] == 0) queue.held.erase(kind);
}

void FairShare::Advance(absl::Duration elapsed) {
  if (half_life_ <= absl::ZeroDuration() || elapsed <= absl::ZeroDuration()) return;
  const double rate = std::log(2.0) / absl::ToDoubleSeconds(half_life_);
  const double fade = std::exp(-rate * absl::ToDoubleSeconds(elapsed));
  for (auto& [name, queue] : queues_) {
    for (auto it = queue.record.used.begin(); it != queue.record.used.end();) {
      it->second *= fade;
      // Less than a slot-second is nothing; forgetting it keeps idle queues silent.
      it = it->second < 1 && queue.held.count(it->first) == 0 ? queue.record.used.erase(it)
                                                              : std::next(it);
    }
    for (const auto& [kind, slots] : queue.held)
      queue.record.used[kind] += slots * (1 - fade) / rate;  // the exact integral
    queue.changed = queue.changed || !queue.record.used.empty();
  }
}

double FairShare::Share(const Queue& queue) const {
  const double half_life = absl::ToDoubleSeconds(half_life_);
  const double rate = half_life > 0 ? std::log(2.0) / half_life : 0;
  double dominant = 0;
  const auto consider = [&](const std::string& kind) {
    auto held = queue.held.find(kind);
    auto used = queue.record.used.find(kind);
    auto capacity = capacity_.find(kind);
    const double slots = (held == queue.held.end() ? 0 : held->second) +
                         (used == queue.record.used.end() ? 0 : used->second * rate);
    const double all = capacity == capacity_.end() ? 1 : std::max(1, capacity->second);
    dominant = std::max(dominant, slots / (2 * all));
  };
  for (const auto& [kind, slots] : queue.held) consider(kind);
  for (const auto& [kind, used] : queue.record.used) consider(kind);
  return dominant / queue.record.weight;
}

size_t FairShare::waiting() const {
  size_t count = 0;
  for (const auto& [name, queue] : queues_) count += queue.waiting.size();
  return count;
}

}  // namespace ll
