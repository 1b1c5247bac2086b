#include "tests/sim/sim_host.h"

#include <signal.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace ll::sim {
namespace {
constexpr absl::Duration kTickSlack = absl::Seconds(2);
}  // namespace

// A trainer's process as the agent sees it.
class SimHost::Process : public RankProcess {
 public:
  Process(SimHost& host, sim::GangKey gang, int rank, int slot)
      : host_(host), gang_(std::move(gang)), rank_(rank), slot_(slot) {}
  ~Process() override { Die(); }

  pid_t pid() const override { return 1000 + rank_; }
  int events_fd() const override { return -1; }
  int exit_fd() const override { return -1; }
  void ReadEvents(const std::function<void(absl::string_view)>& on_line,
                  const std::function<void(int64_t)>&) override {
    while (!lines_->empty()) {
      const std::string line = std::move(lines_->front());
      lines_->pop_front();
      on_line(line);
    }
  }
  void SendControlLine(absl::string_view line) override {
    if (absl::StrContains(line, "rendezvous")) host_.training_.Rendezvous(gang_, rank_);
  }
  void Stop(absl::Duration now, absl::Duration grace) override {
    host_.training_.RequestStop(gang_, rank_);
    kill_at_ = std::min(kill_at_, now + grace);
  }
  void Kill() override {
    if (!host_.training_.Alive(gang_, rank_) || std::exchange(killed_, true)) return;
    if (!host_.slow_deaths_ || !host_.world_.Chance(0.3)) return Die();
    host_.world_.Struck("killed process is held up in the kernel");
    host_.training_.Doom(gang_, rank_);
    host_.busy_slots_[slot_].killed = true;
    host_.world_.After(host_.world_.Between(absl::ZeroDuration(), absl::Seconds(20)),
                       [this, there = std::weak_ptr(exit_)] {
                         if (!there.expired()) Die();
                       });
  }
  void Tick(absl::Duration now) override {
    if (now >= kill_at_) Kill();
  }
  std::optional<ExitStatus> Poll() override { return *exit_; }
  RankHandover Handover() const override { return {}; }

  void Run(RankStart start) {
    // The process may outlive neither this object nor the agent.
    start.on_event = [this](std::string line) {
      lines_->push_back(std::move(line));
      host_.Wake();
    };
    start.on_exit = [this](ExitStatus status) { Ended(status); };
    host_.training_.StartRank(std::move(start));
  }

 private:
  void Die() {
    if (!host_.training_.Alive(gang_, rank_)) return;
    host_.training_.Kill(gang_, rank_);
    Ended({0, SIGKILL});
  }
  void Ended(ExitStatus status) {
    *exit_ = status;
    host_.busy_slots_.erase(slot_);
    host_.Wake();
  }

  SimHost& host_;
  const sim::GangKey gang_;
  const int rank_;
  const int slot_;
  absl::Duration kill_at_ = absl::InfiniteDuration();
  bool killed_ = false;
  const std::shared_ptr<std::deque<std::string>> lines_ =
      std::make_shared<std::deque<std::string>>();
  const std::shared_ptr<std::optional<ExitStatus>> exit_ =
      std::make_shared<std::optional<ExitStatus>>();
};

SimHost::SimHost(World& world, Training& training, Network& network, MemFiles* shared,
                 std::string name, int slots, const std::string& kind)
    : world_(world),
      training_(training),
      network_(network),
      name_(std::move(name)),
      files_(shared) {
  options_.name = options_.host = name_.value();
  options_.work_dir = "/agent";
  options_.job_store = shared != nullptr ? "/shared/jobs" : "/agent/jobs";
  options_.trainer = "ll-trainer";
  options_.gpu_slots = true;  // so that a process is told its slot
  options_.shutdown_grace = absl::Seconds(20);
  for (int i = 0; i < slots; ++i) {
    v1::Slot& slot = options_.slots.emplace_back();
    slot.set_index(i);
    slot.set_kind(kind);
    slot.set_memory_bytes(8'000'000'000);
  }
}

SimHost::~SimHost() = default;

void SimHost::StartAgent() {
  if (running()) return;
  ++life_;
  world_.Trace(absl::StrCat("agent ", name_.value(), " starts, life ", life_));
  metrics_ = std::make_unique<AgentMetrics>("sim");
  agent_ = std::make_unique<Agent>(options_, *this, world_.random, *this, *metrics_, *this);
  const absl::Status opened = agent_->Open();
  if (opened.ok()) {
    Connect();
    return TickEverySecond(life_);
  }
  agent_ = nullptr;
  if (!files_.full())
    world_.Violation(absl::StrCat(name_.value(), " cannot start: ", opened.ToString()));
  world_.After(absl::Seconds(5), [this] { StartAgent(); });
}

void SimHost::KillAgent() {
  if (!running()) return;
  world_.Trace(absl::StrCat("fault: agent ", name_.value(), " dies"));
  agent_ = nullptr;
  ++life_;
  kept_.clear();
  hangs_until_ = -absl::InfiniteDuration();
  if (world_.Chance(0.3)) files_.PowerCut(world_.random);
  network_.HangUp(std::exchange(session_, 0));
}

void SimHost::AskAgentToEnd() {
  if (!running() || hangs()) return;
  world_.Trace(absl::StrCat("fault: agent ", name_.value(), " is asked to end"));
  agent_->BeginShutdown();
}

absl::StatusOr<std::unique_ptr<RankProcess>> SimHost::StartRank(const RankCommand& command) {
  if (world_.Chance(0.01)) {
    world_.Struck("process cannot be started");
    return absl::ResourceExhaustedError("no process");
  }
  RankStart start;
  for (size_t i = 2; i + 1 < command.argv.size(); i += 2) {
    const std::string& flag = command.argv[i];
    const std::string& value = command.argv[i + 1];
    bool ok = true;
    if (flag == "--rank") ok = absl::SimpleAtoi(value, &start.rank);
    if (flag == "--world") ok = absl::SimpleAtoi(value, &start.world_size);
    if (flag == "--epoch") ok = absl::SimpleAtoi(value, &start.gang.second);
    if (flag == "--resume-from") start.resume_from = value;
    if (flag == "--out") start.out = value;
    if (!ok) world_.Violation(absl::StrCat("a trainer is given ", flag, " ", value));
  }
  // OUT is JOB_STORE/JOB/eNNNN.
  const std::vector<std::string> out = absl::StrSplit(start.out, '/');
  start.gang.first = JobId(out[out.size() - 2]);
  start.host = name_.value();
  start.files = &files_;
  int slot = -1;
  if (!absl::SimpleAtoi(command.environment.at("CUDA_VISIBLE_DEVICES"), &slot))
    world_.Violation("a trainer is not given one slot");
  if (!busy_slots_.insert({slot, Running{start.gang}}).second) {
    world_.Violation(absl::StrCat(name_.value(), " slot ", slot, " is given to ",
                                  start.gang.first.value(), " while another runs on it"));
  }
  auto process = std::make_unique<Process>(*this, start.gang, start.rank, slot);
  process->Run(std::move(start));
  return process;
}

// ---- the session

void SimHost::Connect() {
  if (!running() || session_ != 0) return;
  if (hangs()) return kept_.push_back([this] { Connect(); });
  session_ = network_.Dial(name_);
  if (session_ != 0) return agent_->OnOpened();
  world_.After(world_.Between(absl::Milliseconds(200), absl::Seconds(5)), [this, life = life_] {
    if (life == life_) Connect();
  });
}

void SimHost::Receive(uint64_t session, const v1::CoordinatorMessage& message) {
  if (!running() || session != session_) return;
  if (hangs()) return kept_.push_back([this, session, message] { Receive(session, message); });
  if (message.has_stop() && world_.now() < loses_stop_until_) {
    loses_stop_until_ = -absl::InfiniteDuration();
    world_.Trace(absl::StrCat("fault: ", name_.value(), " loses the order to stop ",
                              message.stop().job_id()));
    return world_.Struck("stop order lost");
  }
  last_word_ = world_.now();
  agent_->OnMessage(message);
  if (message.has_welcome()) CheckWelcome(message.welcome());
  Wake();
}

// What the coordinator no longer counts on does not go on beside what it counts on now.
void SimHost::CheckWelcome(const v1::Welcome& welcome) {
  for (const v1::Verdict& verdict : welcome.verdicts()) {
    if (verdict.keep()) continue;
    for (const auto& [epoch, host, doomed] : training_.Living(JobId(verdict.job_id()))) {
      if (epoch == verdict.epoch() && host == name_.value() && !doomed)
        world_.Violation(absl::StrCat(host, " goes on with ", verdict.job_id(), "/", epoch,
                                      ", which its Welcome does not keep"));
    }
  }
}

void SimHost::StreamEnded(uint64_t session) {
  if (!running() || session != session_) return;
  if (hangs()) return kept_.push_back([this, session] { StreamEnded(session); });
  session_ = 0;
  agent_->OnClosed();
  world_.After(world_.Between(absl::Milliseconds(100), absl::Seconds(3)), [this, life = life_] {
    if (life == life_) Connect();
  });
}

void SimHost::Send(v1::AgentMessage message) {
  if (session_ != 0) network_.Send(session_, std::move(message));
}

void SimHost::Reset(const std::string&) {
  if (session_ != 0) network_.HangUp(session_);
}

// ---- the process's main loop

void SimHost::Hang(absl::Duration length) {
  if (!running() || hangs()) return;
  world_.Trace(absl::StrCat("fault: agent ", name_.value(), " hangs"));
  hangs_until_ = world_.now() + length;
  world_.After(length, [this, life = life_] { GoOn(life); });
}

// As the main loop does: what has arrived, then a look at the time.
void SimHost::GoOn(uint64_t life) {
  if (!running() || life != life_) return;
  hangs_until_ = -absl::InfiniteDuration();
  unacknowledged_since_ = absl::InfiniteDuration();
  while (!kept_.empty()) {
    const std::function<void()> arrived = std::move(kept_.front());
    kept_.pop_front();
    arrived();
  }
  Tick();
}

void SimHost::Heal() {
  SetDiskFull(false);
  SetSlowDeaths(false);
  loses_stop_until_ = -absl::InfiniteDuration();
  StartAgent();
}

void SimHost::Wake() {
  if (agent_ == nullptr || std::exchange(woken_, true)) return;
  world_.After(absl::Milliseconds(1), [this] {
    woken_ = false;
    Tick();
  });
}

void SimHost::TickEverySecond(uint64_t life) {
  if (!running() || life != life_) return;
  Tick();
  world_.After(absl::Seconds(1), [this, life] { TickEverySecond(life); });
}

// What is not acknowledged is kept and repeated at every contact: after so long in one session it
// was forgotten. Stalls of the coordinator, of a minute at most, may follow one another.
void SimHost::CheckAcknowledged() {
  constexpr absl::Duration kLong = absl::Minutes(8);
  const bool waits = agent_->welcomed() && agent_->UnacknowledgedReports() > 0;
  if (!waits || unacknowledged_in_ != session_) {
    unacknowledged_in_ = session_;
    unacknowledged_since_ = waits ? world_.now() : absl::InfiniteDuration();
    return;
  }
  unacknowledged_since_ = std::min(unacknowledged_since_, world_.now());
  if (world_.now() - unacknowledged_since_ < kLong) return;
  world_.Violation(absl::StrCat("a report of ", name_.value(), " is not acknowledged"));
  unacknowledged_since_ = world_.now();
}

void SimHost::Tick() {
  if (!running() || hangs()) return;
  agent_->Tick();
  const bool trains = std::any_of(busy_slots_.begin(), busy_slots_.end(),
                                  [](const auto& slot) { return !slot.second.killed; });
  if (trains && world_.now() - last_word_ > kMaxHeadless + kTickSlack)
    world_.Violation(absl::StrCat(name_.value(), " trains on past max_headless"));
  CheckAcknowledged();
  if (!agent_->ShutdownDone()) return;
  world_.Trace(absl::StrCat("agent ", name_.value(), " has ended"));
  agent_ = nullptr;
  ++life_;
  network_.HangUp(std::exchange(session_, 0));
}

}  // namespace ll::sim
