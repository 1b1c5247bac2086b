#include <algorithm>
#include <list>
#include <set>

#include "tests/trace/trace.h"

namespace ll::trace {
namespace {

class Cluster {
 public:
  Cluster(const std::vector<TraceJob>& jobs, int gpus, bool by_priority, bool backfill)
      : jobs_(jobs), free_(gpus), by_priority_(by_priority), backfill_(backfill) {}

  Timeline Run() {
    timeline_.resize(jobs_.size());
    size_t next = 0;
    while (next < jobs_.size() || !running_.empty()) {
      const absl::Duration arrival =
          next < jobs_.size() ? jobs_[next].arrival : absl::InfiniteDuration();
      now_ = running_.empty() ? arrival : std::min(arrival, running_.begin()->first);
      while (!running_.empty() && running_.begin()->first == now_) {
        free_ += jobs_[running_.begin()->second].gpus;
        running_.erase(running_.begin());
      }
      while (next < jobs_.size() && jobs_[next].arrival == now_) Enqueue(next++);
      while (!queue_.empty() && jobs_[queue_.front()].gpus <= free_) {
        Start(queue_.front());
        queue_.pop_front();
      }
      if (backfill_ && !queue_.empty()) Backfill();
    }
    return timeline_;
  }

 private:
  void Enqueue(size_t job) {
    auto at = queue_.end();
    while (by_priority_ && at != queue_.begin() &&
           jobs_[*std::prev(at)].priority < jobs_[job].priority)
      --at;
    queue_.insert(at, job);
  }

  void Start(size_t job) {
    free_ -= jobs_[job].gpus;
    running_.insert({now_ + jobs_[job].run, job});
    timeline_[job] = {{now_, now_ + jobs_[job].run}};
  }

  // The first job's start by the estimates, and what is left over then. A gang past its estimate
  // counts as ending now.
  void Backfill() {
    std::vector<std::pair<absl::Duration, int>> ends;
    for (const auto& [end, job] : running_) {
      ends.emplace_back(std::max(now_, timeline_[job].back().begin + jobs_[job].estimate),
                        jobs_[job].gpus);
    }
    std::sort(ends.begin(), ends.end());
    int spare = free_ - jobs_[queue_.front()].gpus;
    absl::Duration shadow = now_;
    for (size_t i = 0; spare < 0; ++i) {
      shadow = ends[i].first;
      spare += ends[i].second;
    }
    for (auto at = std::next(queue_.begin()); at != queue_.end();) {
      const TraceJob& job = jobs_[*at];
      const bool ends_before = now_ + job.estimate <= shadow;
      if (job.gpus <= free_ && (ends_before || job.gpus <= spare)) {
        if (!ends_before) spare -= job.gpus;
        Start(*at);
        at = queue_.erase(at);
      } else {
        ++at;
      }
    }
  }

  const std::vector<TraceJob>& jobs_;
  int free_;
  const bool by_priority_, backfill_;
  absl::Duration now_;
  std::list<size_t> queue_;
  std::set<std::pair<absl::Duration, size_t>> running_;  // by end
  Timeline timeline_;
};

}  // namespace

Timeline RunFifo(const std::vector<TraceJob>& jobs, int gpus) {
  return Cluster(jobs, gpus, /*by_priority=*/false, /*backfill=*/false).Run();
}
Timeline RunStrictPriority(const std::vector<TraceJob>& jobs, int gpus) {
  return Cluster(jobs, gpus, /*by_priority=*/true, /*backfill=*/false).Run();
}
Timeline RunEasy(const std::vector<TraceJob>& jobs, int gpus) {
  return Cluster(jobs, gpus, /*by_priority=*/false, /*backfill=*/true).Run();
}
Timeline RunEasyPriority(const std::vector<TraceJob>& jobs, int gpus) {
  return Cluster(jobs, gpus, /*by_priority=*/true, /*backfill=*/true).Run();
}

}  // namespace ll::trace
