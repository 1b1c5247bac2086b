// The coordinator's core under a trace: every rank's reports go in, orders come out, no faults.
#include <map>
#include <memory>
#include <queue>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "coordinator/core/retry.h"
#include "coordinator/core/scheduler.h"
#include "tests/trace/trace.h"

namespace ll::trace {
namespace {

constexpr int kSlotsPerHost = 8;
constexpr absl::Duration kTick =
    absl::Seconds(2);  // a longer one counts as a pause of the coordinator

class CoreRun {
 public:
  CoreRun(const std::vector<TraceJob>& jobs, absl::Duration checkpoint_time, bool priorities)
      : jobs_(jobs), checkpoint_time_(checkpoint_time), priorities_(priorities) {
    SchedulerOptions options;
    options.shared_job_store = true;
    options.lease = absl::Hours(24 * 365);  // agents are always there
    auto scheduler = Scheduler::Recover({}, options, {absl::ZeroDuration(), absl::UnixEpoch()});
    LL_CHECK(scheduler.ok());
    scheduler_ = std::make_unique<Scheduler>(std::move(scheduler).value());
    left_.reserve(jobs.size());
    for (const TraceJob& job : jobs) left_.push_back(job.run);
    timeline_.resize(jobs.size());
  }

  Timeline Run(int gpus) {
    for (int host = 0; host < gpus / kSlotsPerHost; ++host) Hello(host);
    for (size_t i = 0; i < jobs_.size(); ++i) At(jobs_[i].arrival, [this, i] { Submit(i); });
    At(kTick, [this] { Tick(); });
    while (done_ < jobs_.size()) {
      LL_CHECK(!agenda_.empty());
      const Item item = agenda_.top();
      agenda_.pop();
      now_ = item.time;
      item.what();
    }
    return timeline_;
  }

 private:
  struct Item {
    absl::Duration time;
    uint64_t order;
    std::function<void()> what;
    bool operator<(const Item& other) const {  // std::priority_queue gives the largest
      return std::tie(time, order) > std::tie(other.time, other.order);
    }
  };
  void At(absl::Duration time, std::function<void()> what) {
    agenda_.push({time, order_++, std::move(what)});
  }

  void Hello(int host) {
    AgentHelloEvent event;
    event.session = static_cast<uint64_t>(host) + 1;
    event.worker = WorkerId(absl::StrCat("worker-", host));
    event.incarnation = "1";
    event.host = absl::StrCat("host-", host);
    for (int s = 0; s < kSlotsPerHost; ++s) event.slots.push_back({s, "H100", 80'000'000'000});
    Step(event);
  }

  void Submit(size_t i) {
    SubmitEvent event;
    event.job = JobId(absl::StrCat("job-", i));
    event.user = absl::StrCat("user-", jobs_[i].user);
    event.spec.gpus = jobs_[i].gpus;
    event.spec.priority = priorities_ ? jobs_[i].priority : 0;
    event.spec.forecast_duration = jobs_[i].estimate;
    event.payload = payload_;
    Step(event);
  }

  void Tick() {
    Step(TickEvent{});
    At(now_ + kTick, [this] { Tick(); });
  }

  void Step(const Event& event) {
    const Effects effects = scheduler_->Step(event, now_, absl::UnixEpoch() + now_);
    LL_CHECK(effects.reply.status.ok());
    for (const Send& send : effects.sends) {
      if (const auto* start = std::get_if<StartGangOrder>(&send.order)) {
        if (start->ranks.front().rank != 0) continue;  // once a gang
        At(now_, [this, job = start->job, epoch = start->epoch] { Start(job, epoch); });
      } else if (const auto* stop = std::get_if<StopGangOrder>(&send.order)) {
        LL_CHECK_MSG(stop->checkpoint, "a gang was killed");
        if (stopping_.insert({stop->job, stop->epoch}).second)
          At(now_, [this, job = stop->job, epoch = stop->epoch] { Stop(job, epoch); });
      }
    }
  }

  size_t IndexOf(const JobId& job) const { return std::stoul(job.value().substr(4)); }
  bool IsCurrent(const JobId& job, int64_t epoch) const {
    const Job* found = scheduler_->Find(job);
    return found != nullptr && found->attempt.has_value() && found->attempt->epoch == epoch &&
           !found->attempt->over();
  }

  template <typename Fact>
  void ReportOfEveryRank(const JobId& job, int64_t epoch, const Fact& fact) {
    const std::vector<Rank> ranks = scheduler_->Find(job)->attempt->ranks;
    for (size_t rank = 0; rank < ranks.size(); ++rank) Report(job, epoch, ranks, rank, fact);
  }
  template <typename Fact>
  void Report(const JobId& job, int64_t epoch, const std::vector<Rank>& ranks, size_t rank,
              const Fact& fact) {
    const WorkerId& worker = ranks[rank].worker;
    ReportEvent event{worker,
                      scheduler_->workers().at(worker).session,
                      job,
                      epoch,
                      static_cast<int>(rank),
                      ++sequence_[{job, worker, epoch}]};
    event.fact = fact;
    Step(event);
  }

  void Start(const JobId& job, int64_t epoch) {
    if (!IsCurrent(job, epoch)) return;
    timeline_[IndexOf(job)].push_back({now_, now_});
    running_[job] = epoch;
    ReportOfEveryRank(job, epoch, TrainingFact{});
    At(now_ + left_[IndexOf(job)], [this, job, epoch] { Finish(job, epoch); });
  }

  // What the gang trained until now is in its checkpoint; writing it takes time without progress.
  void Stop(const JobId& job, int64_t epoch) {
    auto running = running_.find(job);
    if (running == running_.end() || running->second != epoch) return;
    running_.erase(running);
    Interval& interval = timeline_[IndexOf(job)].back();
    interval.end = now_;
    left_[IndexOf(job)] -= interval.end - interval.begin;
    At(now_ + checkpoint_time_, [this, job, epoch] {
      const std::vector<Rank> ranks = scheduler_->Find(job)->attempt->ranks;
      Report(job, epoch, ranks, 0, CheckpointFact{epoch, absl::StrCat("e", epoch), "hash"});
      ExitFact exit;
      exit.exit.code = kExitCheckpointed;
      exit.exit.ordered = true;
      ReportOfEveryRank(job, epoch, exit);
    });
  }

  void Finish(const JobId& job, int64_t epoch) {
    auto running = running_.find(job);
    if (running == running_.end() || running->second != epoch) return;
    running_.erase(running);
    timeline_[IndexOf(job)].back().end = now_;
    ReportOfEveryRank(job, epoch, ExitFact{});
    LL_CHECK(scheduler_->Find(job)->state == JobState::kSucceeded);
    ++done_;
  }

  const std::vector<TraceJob>& jobs_;
  const absl::Duration checkpoint_time_;
  const bool priorities_;
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<const JobPayload> payload_ = std::make_shared<JobPayload>();
  absl::Duration now_;
  uint64_t order_ = 0;
  std::priority_queue<Item> agenda_;
  std::vector<absl::Duration> left_;
  std::map<JobId, int64_t> running_;  // with the epoch that trains
  std::set<std::pair<JobId, int64_t>> stopping_;
  std::map<std::tuple<JobId, WorkerId, int64_t>, int64_t> sequence_;
  Timeline timeline_;
  size_t done_ = 0;
};

}  // namespace

Timeline RunCore(const std::vector<TraceJob>& jobs, int gpus, absl::Duration checkpoint_time,
                 bool priorities) {
  return CoreRun(jobs, checkpoint_time, priorities).Run(gpus);
}

}  // namespace ll::trace
