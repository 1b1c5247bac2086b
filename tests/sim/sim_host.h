// A machine with the shipped agent on it. What is simulated is what the agent does not decide: its
// files, its clock, the trainer processes (training.h), and the stream to the coordinator.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/ids.h"
#include "tests/sim/mem_files.h"
#include "tests/sim/training.h"
#include "tests/sim/world.h"
#include "worker/agent/agent.h"

namespace ll::sim {

inline constexpr absl::Duration kMaxHeadless = absl::Seconds(120);  // of every job

// The way between the hosts and the coordinator. Messages of a session arrive in order or not at
// all.
class Network {
 public:
  virtual ~Network() = default;
  // A new stream, or 0 when the coordinator cannot be reached.
  virtual uint64_t Dial(const WorkerId& worker) = 0;
  virtual void Send(uint64_t session, v1::AgentMessage message) = 0;
  // The agent ends the stream or its process died.
  virtual void HangUp(uint64_t session) = 0;
};

class SimHost : public Host, public Link, public Clock {
 public:
  // `shared` is the job store of all hosts; null: each has its own. `kind`: of its slots.
  SimHost(World& world, Training& training, Network& network, MemFiles* shared, std::string name,
          int slots, const std::string& kind);
  ~SimHost() override;

  void StartAgent();     // nothing if it runs
  void KillAgent();      // kill -9: its ranks die with it. Files may lose what was not synced
  void AskAgentToEnd();  // SIGTERM: ranks checkpoint first
  bool running() const { return agent_ != nullptr; }
  const WorkerId& name() const { return name_; }
  uint64_t session() const { return session_; }
  void SetDiskFull(bool full) { files_.SetFull(full); }
  // Its main loop stands still (a disk that does not answer), while its connection lives on: what
  // arrives is kept.
  void Hang(absl::Duration length);
  bool hangs() const { return world_.now() < hangs_until_; }
  // A stop order that it is given in the next minute has no effect.
  void LoseNextStop() { loses_stop_until_ = world_.now() + absl::Minutes(1); }
  // Whether a killed process may take its time to be gone.
  void SetSlowDeaths(bool slow) { slow_deaths_ = slow; }
  // No more faults of its own.
  void Heal();
  bool Busy(int slot) const { return busy_slots_.count(slot) > 0; }
  // A trainer's process there, which may have been killed and not be gone yet.
  struct Running {
    GangKey gang;
    bool killed = false;
  };
  const std::map<int, Running>& busy_slots() const { return busy_slots_; }

  // From the network.
  void Receive(uint64_t session, const v1::CoordinatorMessage& message);
  void StreamEnded(uint64_t session);

  // Host
  Files& files() override { return files_; }
  absl::StatusOr<std::unique_ptr<RankProcess>> StartRank(const RankCommand& command) override;
  absl::StatusOr<std::unique_ptr<RankProcess>> AdoptRank(const RankHandover&) override {
    return absl::UnimplementedError("simulated processes are not handed over");
  }
  absl::StatusOr<std::shared_ptr<HostLock>> Lock(const std::string&) override {
    return std::shared_ptr<HostLock>();
  }
  int KillMarked(absl::string_view, int) override { return 0; }
  // Link
  void Send(v1::AgentMessage message) override;
  void Reset(const std::string& reason) override;
  // Clock
  absl::Time Now() override { return absl::UnixEpoch() + world_.now(); }
  absl::Duration Steady() override { return world_.now(); }
  void Sleep(absl::Duration) override {}

 private:
  class Process;
  void Connect();
  void Wake();  // a descriptor has become readable
  void GoOn(uint64_t life);
  void TickEverySecond(uint64_t life);
  void Tick();
  void CheckWelcome(const v1::Welcome& welcome);
  void CheckAcknowledged();

  World& world_;
  Training& training_;
  Network& network_;
  const WorkerId name_;
  AgentOptions options_;
  MemFiles files_;
  std::map<int, Running> busy_slots_;
  bool slow_deaths_ = false;
  absl::Duration hangs_until_ = -absl::InfiniteDuration();
  absl::Duration loses_stop_until_ = -absl::InfiniteDuration();
  std::deque<std::function<void()>> kept_;  // what has arrived while it hangs

  std::unique_ptr<AgentMetrics> metrics_;
  std::unique_ptr<Agent> agent_;  // null: no process
  uint64_t life_ = 0;             // counts processes
  uint64_t session_ = 0;
  absl::Duration last_word_ = absl::ZeroDuration();  // of the coordinator
  // Since when, in which session, some report was never acknowledged.
  absl::Duration unacknowledged_since_ = absl::InfiniteDuration();
  uint64_t unacknowledged_in_ = 0;
  bool woken_ = false;
};

}  // namespace ll::sim
