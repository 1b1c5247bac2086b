// The scheduler alone at scale: 10,000 queued jobs, 1,000 workers of 8 slots, gangs of 1 to 64 in
// three queues, forecasts that err by half. Gangs end one after the other and others take their
// place. Prints the time of a decision (one Step), placements a second and peak memory, and how
// long it takes to say why a queued job waits. Of the jobs STUCK need more memory than any slot
// has, each another amount, and stand in front. Run by hand: build/bench/core_bench [JOBS WORKERS
// [STUCK]]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <queue>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/ids.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

constexpr int kSlots = 8;

class Bench {
 public:
  Bench(int jobs, int workers, int stuck)
      : jobs_(jobs), workers_(workers), stuck_(stuck), random_(7) {
    SchedulerOptions options;
    options.shared_job_store = true;
    auto scheduler = Scheduler::Recover({}, options, {now_, absl::UnixEpoch()});
    LL_CHECK(scheduler.ok());
    scheduler_ = std::make_unique<Scheduler>(std::move(scheduler).value());
  }

  void Run() {
    for (const char* queue : {"research", "nightly"}) {
      QueueRecord record;
      record.name = queue;
      record.weight = 2;
      record.quota_gpus = workers_ * kSlots / 4;
      Step(SetQueueEvent{record, "op"});
    }
    for (int i = 0; i < jobs_; ++i) Submit(i);
    for (int i = 0; i < workers_; ++i) Hello(i);
    Step(TickEvent{});
    seconds_.clear();
    placements_ = 0;
    const int rounds = 5000;
    for (int i = 0; i < rounds && !ends_.empty(); ++i) {
      FinishNext();
      if (i % 10 == 0) Step(TickEvent{});
    }
    Report();
    Explain();
  }

 private:
  void Submit(int i) {
    SubmitEvent event;
    event.job = JobId(absl::StrCat("job-", i));
    event.user = "ann";
    constexpr const char* kQueues[] = {"", "research", "nightly"};
    event.spec.queue = kQueues[random_.Below(3)];
    event.spec.gpus = 1 << random_.Below(7);
    event.spec.priority = static_cast<int>(random_.Below(3));
    event.spec.forecast_duration = absl::Seconds(60 + static_cast<int64_t>(random_.Below(7200)));
    event.payload = payload_;
    if (i < stuck_) {
      event.spec.priority = 9;
      event.spec.required_slot_bytes = 90'000'000'000 + i;
    }
    Step(event);
  }

  // The newest queued jobs: the most stand before them.
  void Explain() {
    std::vector<double> why, wait;
    int predicted = 0;
    for (const Job* job : scheduler_->List({200, INT64_MAX, {JobState::kQueued}})) {
      const auto begin = std::chrono::steady_clock::now();
      LL_CHECK(scheduler_->Why(job->id).ok());
      const auto middle = std::chrono::steady_clock::now();
      predicted += scheduler_->PredictedWait(*job).has_value();
      const auto end = std::chrono::steady_clock::now();
      why.push_back(std::chrono::duration<double, std::milli>(middle - begin).count());
      wait.push_back(std::chrono::duration<double, std::milli>(end - middle).count());
    }
    if (why.empty()) return;
    for (auto* times : {&why, &wait}) std::sort(times->begin(), times->end());
    std::printf(
        "why a job waits, %zu of them: median %.2f ms, max %.2f ms; predicted starts (%d known): "
        "median %.2f ms, max %.2f ms\n",
        why.size(), why[why.size() / 2], why.back(), predicted, wait[wait.size() / 2], wait.back());
  }

  void Hello(int i) {
    AgentHelloEvent event;
    event.session = i + 1;
    event.worker = WorkerId(absl::StrCat("worker-", i));
    event.incarnation = "1";
    event.host = absl::StrCat("host-", i);
    event.rack = absl::StrCat("rack-", i / 16);
    for (int s = 0; s < kSlots; ++s) event.slots.push_back({s, "H100", 80'000'000'000});
    Step(event);
  }

  // Every rank trains, then every rank exits: 2 · ranks events, of which the exits free slots.
  void FinishNext() {
    const auto [end, id] = ends_.top();
    ends_.pop();
    now_ = std::max(now_, end);
    const Job* job = scheduler_->Find(id);
    if (job == nullptr || !job->attempt.has_value() || job->attempt->over()) return;
    const Attempt attempt = *job->attempt;
    std::map<WorkerId, int64_t> sequence;
    for (const bool exits : {false, true}) {
      for (size_t i = 0; i < attempt.ranks.size(); ++i) {
        const WorkerId& worker = attempt.ranks[i].worker;
        ReportEvent event{worker,
                          scheduler_->workers().at(worker).session,
                          id,
                          attempt.epoch,
                          static_cast<int>(i),
                          ++sequence[worker]};
        if (exits) {
          event.fact = ExitFact{};
        } else {
          event.fact = TrainingFact{};
        }
        Step(event);
      }
    }
  }

  void Step(const Event& event) {
    const auto begin = std::chrono::steady_clock::now();
    const Effects effects = scheduler_->Step(event, now_, absl::UnixEpoch() + now_);
    seconds_.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    for (const Record& record : effects.records) {
      const auto* put = std::get_if<PutTransition>(&record);
      if (put == nullptr || put->transition.state != JobState::kStarting) continue;
      ++placements_;
      const Job* job = scheduler_->Find(put->job);
      const double error = 0.5 + static_cast<double>(random_.Below(1000)) / 1000;
      ends_.push({now_ + job->spec.forecast_duration * error, put->job});
    }
  }

  void Report() {
    double sum = 0;
    for (double s : seconds_) sum += s;
    std::sort(seconds_.begin(), seconds_.end());
    const auto at = [this](double p) {
      return 1e3 * seconds_[static_cast<size_t>(p * static_cast<double>(seconds_.size() - 1))];
    };
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    std::printf(
        "%d jobs, %d workers: %zu decisions, p50 %.3f ms, p99 %.3f ms, max %.3f ms; %d placements "
        "in %.2f s, %.0f a second; peak memory %ld MB\n",
        jobs_, workers_, seconds_.size(), at(0.5), at(0.99), at(1), placements_, sum,
        placements_ / sum, usage.ru_maxrss / 1024);
  }

  using End = std::pair<absl::Duration, JobId>;
  const int jobs_, workers_, stuck_;
  SeededRandom random_;
  absl::Duration now_ = absl::ZeroDuration();
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<const JobPayload> payload_ = std::make_shared<JobPayload>();
  std::priority_queue<End, std::vector<End>, std::greater<End>> ends_;
  std::vector<double> seconds_;  // of each step
  int placements_ = 0;
};

}  // namespace
}  // namespace ll

int main(int argc, char** argv) {
  const int jobs = argc > 1 ? std::atoi(argv[1]) : 10'000;
  const int workers = argc > 2 ? std::atoi(argv[2]) : 1'000;
  ll::Bench(jobs, workers, argc > 3 ? std::atoi(argv[3]) : 0).Run();
  return 0;
}
