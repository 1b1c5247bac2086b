// The agent's decisions: what the coordinator's messages, the trainers and time lead to. All of it
// on one thread, the process's main one; the network is behind Link. Not thread-safe.
//
// Out of contact: past the lease the agent is headless. Its ranks go on, their events and reports
// wait on disk, and a gang whose max_headless has passed is ended. What the next Welcome does not
// keep is killed.
#pragma once

#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/ids.h"
#include "proto/agent_state.pb.h"
#include "proto/workers.pb.h"
#include "worker/agent/agent_metrics.h"
#include "worker/agent/gang.h"
#include "worker/agent/host.h"
#include "worker/agent/orders.h"
#include "worker/agent/roots.h"

namespace ll {

// The way to the coordinator. Send may be called when there is no session: the message is lost
// then.
class Link {
 public:
  virtual ~Link() = default;
  virtual void Send(v1::AgentMessage message) = 0;
  // Ends the session, if there is one, and begins another.
  virtual void Reset(const std::string& reason) = 0;
};

struct AgentOptions {
  std::string name, host, http_address;
  std::string work_dir;   // absolute
  std::string job_store;  // absolute; empty: WORK_DIR/jobs
  std::string trainer;    // absolute
  std::string fabric_host = "127.0.0.1";
  std::string nvlink_domain, rack;  // where the host stands; may be empty
  std::string calibration;          // what a probe of its slots printed; empty: not measured
  std::vector<v1::Slot> slots;
  bool gpu_slots = false;  // a slot's index is a GPU's
  Roots roots;
  std::shared_ptr<const TrainerSandbox> sandbox;  // null: trainers are not confined
  int trainer_threads = 0;
  // What ranks get to write a checkpoint when the agent itself is asked to end.
  absl::Duration shutdown_grace = absl::Seconds(60);
  // How busy the slots are, for heartbeats; must not wait. Null: that is not known.
  std::function<std::vector<v1::SlotLoad>()> slot_loads;
};

class Agent {
 public:
  // The references outlive the agent.
  Agent(AgentOptions options, Clock& clock, Random& random, Link& link, AgentMetrics& metrics,
        Host& host = RealHost());
  ~Agent();

  // Locks the work directory, ends what an earlier agent process left running and
  // reads its notes. Errors: another agent uses the directory (AlreadyExists); it cannot be used.
  absl::Status Open();
  // Instead of Open, in a program that was executed in an agent's place: goes on with its ranks,
  // under its incarnation. Errors: as CheckAgentState; a process or descriptor is not there.
  absl::Status Adopt(const v1::AgentState& state);
  // What Adopt wants. This object goes on.
  v1::AgentState Handover() const;

  // ---- the session; after OnOpened a Welcome is expected within kWelcomeDeadline
  void OnOpened();
  void OnMessage(const v1::CoordinatorMessage& message);
  void OnClosed();

  // Descriptors that make Tick worth calling at once.
  std::vector<int> PollFds() const;
  // Everything that time and trainers bring. Call at least every 100 ms while ranks run.
  void Tick();

  // Asks every rank to checkpoint and end; no new gang is taken. A second call kills.
  void BeginShutdown();
  // After BeginShutdown: nothing runs and the coordinator knows it (or cannot be told in time).
  bool ShutdownDone() const;

  bool welcomed() const { return welcomed_; }
  bool ever_welcomed() const { return ever_welcomed_; }
  bool shutting_down() const { return shutting_down_; }
  // Reports of all gangs that the coordinator has not acknowledged.
  int64_t UnacknowledgedReports() const;

 private:
  static constexpr absl::Duration kWelcomeDeadline = absl::Seconds(10);
  static constexpr absl::Duration kSlotWait = absl::Seconds(60);
  struct PendingStart {
    v1::StartGang order;
    absl::Duration deadline;
  };

  absl::Status LockWorkDir();
  absl::Status CheckName(const std::string& earlier) const;
  absl::Status SaveNotes() const;
  void ReopenGangs();
  void SendHello();
  void OnWelcome(const v1::Welcome& welcome);
  void OnStart(const v1::StartGang& order);
  void OnStop(const v1::StopGang& order);
  void StartNow(const v1::StartGang& order);
  void Refuse(const v1::StartGang& order, v1::FailureClass failure_class,
              const std::string& reason);
  void Keep(std::unique_ptr<Gang> gang);
  void RetryPending(absl::Duration now);
  void TickContact(absl::Duration now);
  void TickGangs(absl::Duration now);
  void SendHeartbeat(absl::Duration now);
  void UpdateMetrics(absl::Duration now);
  Gang* Find(const std::string& job_id, int64_t epoch);

  AgentOptions options_;
  Clock& clock_;
  Link& link_;
  AgentMetrics& metrics_;
  Host& host_;
  Files& files_;
  GangSetup setup_;
  Orders orders_;
  ContactLease lease_{absl::Seconds(30)};
  std::map<GangKey, std::unique_ptr<Gang>> gangs_;
  std::list<PendingStart> pending_;
  std::shared_ptr<HostLock> lock_;
  int64_t reexecs_ = 0;
  bool open_ = false;      // a session is open; its Welcome may be missing yet
  bool welcomed_ = false;  // of this session
  bool ever_welcomed_ = false;
  absl::Duration opened_at_;
  absl::Duration heartbeat_ = absl::Seconds(5), last_heartbeat_;
  int64_t heartbeat_sequence_ = 0;
  bool shutting_down_ = false;
  absl::Duration shutdown_began_;
};

}  // namespace ll
