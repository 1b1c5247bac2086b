#include "tests/sim/simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "tests/sim/simulation_run.h"

namespace ll::sim {

Simulation::Simulation(const SimOptions& options)
    : options_(options),
      world_(options.seed, options.print),
      shared_job_store_(world_.Chance(0.6)),
      storage_(world_, options.seed % kSeedsPerSqliteSeed == 0, options.bug),
      training_(world_, shared_job_store_) {
  for (FaultKind kind : kAllFaults) {
    if (world_.Chance(0.5)) fault_kinds_.push_back(kind);
  }
  if (fault_kinds_.empty()) fault_kinds_.push_back(FaultKind::kRepeat);
  if (fault_kinds_.front() == FaultKind::kCoordinator) crash_rate_ = 0.004;
  const bool slow_deaths = world_.Chance(0.5);
  storage_.on_durable = [this](absl::Span<const Record> records) { NoteDurable(records); };
  storage_.on_refused = [this](absl::Span<const Record> records) {
    for (const Record& record : records) {
      if (const auto* put = std::get_if<PutSubmission>(&record)) refused_.insert(put->job);
    }
  };
  fault_every_ = absl::Seconds(10 + static_cast<int64_t>(world_.random.Below(60)));
  const int agents = 20 + static_cast<int>(world_.random.Below(9));
  const bool two_types = world_.Chance(0.5);
  std::vector<std::string> slots;
  for (int i = 0; i < agents; ++i) {
    const int count = 1 + static_cast<int>(world_.random.Below(3));
    const std::string kind = !two_types ? "cpu" : i % 3 == 0 ? "H100" : "A100-80";
    int& room = room_[kind];
    room = shared_job_store_ ? room + count : std::max(room, count);
    hosts_.push_back(std::make_unique<SimHost>(world_, training_, *this,
                                               shared_job_store_ ? &job_store_ : nullptr,
                                               absl::StrCat("w", i + 1), count, kind));
    hosts_.back()->SetSlowDeaths(slow_deaths);
    slots.push_back(absl::StrCat(count));
  }
  for (const auto& host : hosts_) by_name_.push_back(host.get());
  std::sort(by_name_.begin(), by_name_.end(),
            [](const SimHost* a, const SimHost* b) { return a->name() < b->name(); });
  v1::JobSpec spec;
  spec.set_max_headless(absl::ToInt64Seconds(kMaxHeadless));
  payload_ = std::make_shared<JobPayload>(JobPayload{"", spec.SerializeAsString(), ""});
  PlanQueues();
  PlanSchedules();
  result_.agents = agents;
  const int jobs = 50 + static_cast<int>(world_.random.Below(21));
  for (int i = 0; i < jobs; ++i) {
    Request request;
    request.id = absl::StrCat("request-", i);
    request.spec.gpus = 1 + static_cast<int>(world_.random.Below(shared_job_store_ ? 5 : 3));
    if (shared_job_store_ && world_.Chance(0.1)) request.spec.gpus *= 4;
    request.spec.priority = static_cast<int>(world_.random.Below(3));
    const QueueRecord& queue = queues_[world_.random.Below(queues_.size())];
    request.spec.queue = queue.name;
    request.spec.gpus = std::min(request.spec.gpus, queue.max_gpus.value_or(request.spec.gpus));
    NameTypes(request.spec);
    // Without a shared job store a gang stays on one host, of one to three slots.
    if (world_.Chance(0.25)) {
      request.spec.max_gpus = request.spec.gpus * (2 + static_cast<int>(world_.random.Below(2)));
      if (world_.Chance(0.5)) request.spec.batch_rows = request.spec.max_gpus;
      if (i % 2 == 0) request.spec.row_ranks = request.spec.gpus;
    }
    request.spec.max_retries = 5;
    request.spec.max_headless = kMaxHeadless;
    // Some longer than max_headless and what the coordinator adds to it.
    request.steps = 10 + static_cast<int>(world_.random.Below(world_.Chance(0.4) ? 600 : 100));
    request.checkpoint_every = 3 + static_cast<int>(world_.random.Below(20));
    // Forecasts from a fifth to twice the truth; some jobs have none.
    if (world_.Chance(0.7)) {
      request.spec.forecast_duration = absl::Seconds(
          request.steps * (20 + static_cast<int64_t>(world_.random.Below(180))) / 100 + 1);
    }
    // Some come together, then mostly one behind the other.
    request.first = requests_.size();
    const bool together = i > 0 && world_.Chance(0.15);
    if (together) request.first = requests_.back().first;
    if (together && world_.Chance(0.7)) {
      request.waits_for = requests_.size() - 1;
    } else if (!together && i > 0 && world_.Chance(0.15)) {
      request.waits_for = world_.random.Below(static_cast<uint64_t>(i));
    }
    request.any = world_.Chance(0.3);
    request.starts_from_it = !request.any && world_.Chance(0.5);
    // The host that holds the checkpoint may have one slot only.
    if (request.starts_from_it && !shared_job_store_) {
      request.spec.gpus = request.spec.row_ranks = 1;
      request.spec.slot_kinds.clear();  // nor be of another type
    }
    if (world_.Chance(0.2)) request.may_take = world_.Between(absl::Minutes(1), absl::Minutes(40));
    requests_.push_back(std::move(request));
  }
  result_.options = absl::StrCat("seed ", options.seed, ": slots ", absl::StrJoin(slots, "+"), ", ",
                                 jobs, " jobs", shared_job_store_ ? ", shared job store" : "",
                                 storage_.sqlite() ? ", SQLite" : "", ", ", fault_kinds_.size(),
                                 " kinds of faults");
}

// Some jobs name the type of slots that they run on. None is larger than its type: a gang never
// mixes them.
void Simulation::NameTypes(CoreSpec& spec) {
  int most = 0;
  for (const auto& [kind, room] : room_) most = std::max(most, room);
  if (room_.size() > 1 && world_.Chance(0.4)) {
    const auto& [kind, room] = *std::next(room_.begin(), static_cast<int>(world_.random.Below(2)));
    spec.slot_kinds = {kind};
    most = room;
  }
  spec.gpus = std::min(spec.gpus, most);
}

// ---- the end

bool Simulation::Done() {
  if (faults_ || scheduler() == nullptr) return false;
  // Asked before each action; only a decision can change the answer.
  if (std::exchange(done_looked_at_, result_.steps) == result_.steps) return false;
  for (const auto& [name, worker] : scheduler()->workers()) {
    if (worker.cordoned) Give(CordonWorkerEvent{name, Cordon::kUncordon, "op", ""});
  }
  bool done = LimitsRestored() && SchedulesDone();
  for (const Request& request : requests_) {
    if (!request.acked.has_value()) return false;
    const Job* job = scheduler()->Find(*request.acked);
    if (job != nullptr && job->state == JobState::kPaused) Give(ResumeEvent{job->id, "ann"});
    if (job != nullptr && !IsTerminal(job->state)) {
      // What no agent can hold never ends by itself.
      if (job->state != JobState::kQueued ||
          job->wait_reason.find("that would do") == std::string::npos)
        return false;
    }
  }
  return done;
}

void Simulation::CheckEnd() {
  CheckSchedules();
  std::set<JobId> ids;
  for (const Request& request : requests_) {
    if (!request.acked.has_value()) {
      world_.Violation(absl::StrCat(request.id, " was never acknowledged"));
      continue;
    }
    ++result_.jobs_acked;
    if (!ids.insert(*request.acked).second) world_.Violation("two requests share a job");
    const Job* job = scheduler() == nullptr ? nullptr : scheduler()->Find(*request.acked);
    if (job == nullptr) {
      world_.Violation(absl::StrCat("acknowledged ", request.acked->value(), " was lost"));
      continue;
    }
    result_.succeeded += job->state == JobState::kSucceeded;
    result_.failed += job->state == JobState::kFailed;
    result_.cancelled += job->state == JobState::kCancelled;
    if (request.cancel_acked && job->state != JobState::kCancelled) {
      world_.Violation(absl::StrCat("the cancel of ", job->id.value(),
                                    " was acknowledged but it is ",
                                    std::string(JobStateName(job->state))));
    }
    if (!training_.Living(job->id).empty() && IsTerminal(job->state)) {
      world_.Violation(absl::StrCat(job->id.value(), " has ended but still runs"));
    }
  }
}

SimResult Simulation::Run() {
  StartCoordinator();
  storage_.SetCrashRate(crash_rate_);
  storage_.SetUnreliable(fault_kinds_.back() == FaultKind::kDisk);
  for (const auto& host : hosts_) {
    world_.After(world_.Between(absl::ZeroDuration(), absl::Seconds(10)),
                 [&host] { host->StartAgent(); });
  }
  PlanClients();
  world_.After(absl::Seconds(15), [this] { Fault(); });
  world_.RunUntil(kFaultsLast, [] { return false; });
  Heal();
  const bool ended = world_.RunUntil(kFaultsLast + kMustEndWithin, [this] { return Done(); });
  if (!ended) {
    for (const Request& request : requests_) {
      if (!request.acked.has_value() || scheduler() == nullptr) continue;
      const auto why = scheduler()->Why(*request.acked);
      const Job* job = scheduler()->Find(*request.acked);
      if (job != nullptr && !IsTerminal(job->state)) {
        world_.Violation(absl::StrCat(job->id.value(), " did not end: ", why.ok() ? *why : ""));
      }
    }
  }
  // Give strays a moment to be killed.
  world_.RunUntil(world_.now() + absl::Minutes(6), [] { return false; });
  CheckEnd();
  result_.checkpoints = training_.checkpoints_written();
  result_.actions = static_cast<int64_t>(world_.ran());
  result_.faults = world_.faults;
  result_.sqlite = storage_.sqlite();
  result_.violations = world_.violations;
  result_.digest = world_.digest();
  return result_;
}

SimResult Simulate(const SimOptions& options) { return Simulation(options).Run(); }

}  // namespace ll::sim
