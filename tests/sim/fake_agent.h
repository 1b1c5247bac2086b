// An agent as proto/workers.proto describes it: sessions, a journal of reports that outlives its
// process, fencing by epoch, headless operation. Its network is the Link.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "coordinator/core/events.h"
#include "tests/sim/training.h"
#include "tests/sim/world.h"

namespace ll::sim {

struct HeartbeatAck {};
using ToAgent = std::variant<WelcomeOrder, RejectHelloOrder, StartGangOrder, StopGangOrder,
                             RendezvousOrder, ReleaseGangOrder, ReportAckOrder, HeartbeatAck>;

// The coordinator's side of the network. Messages of a session arrive in order or not at all.
class Link {
 public:
  virtual ~Link() = default;
  // A new stream, or 0 when the coordinator cannot be reached.
  virtual uint64_t Dial(const WorkerId& worker) = 0;
  virtual void Send(uint64_t session, Event event) = 0;
  // The agent ends the stream or its process died.
  virtual void HangUp(uint64_t session) = 0;
};

class FakeAgent {
 public:
  FakeAgent(World& world, Training& training, Link& link, std::string name, int slots, Bug bug);

  void Start();  // the process; nothing if it runs
  void Crash();  // kill -9: its ranks die with it
  bool running() const { return running_; }
  const WorkerId& name() const { return name_; }
  uint64_t session() const { return session_; }

  // From the network.
  void Receive(uint64_t session, const ToAgent& message);
  void StreamEnded(uint64_t session);
  void ResendReports();  // an impatient agent repeats what is not acknowledged

 private:
  // Journal and memory of one gang's part.
  struct Gang {
    StartGangOrder order;
    std::map<int, int> slots;  // rank → slot
    std::map<int, RankExit> exits;
    std::vector<ReportEvent> journal;  // sequence = index + 1
    int64_t acked = 0;
  };

  void Connect();
  void OnWelcome(const WelcomeOrder& welcome);
  void OnStart(const StartGangOrder& order);
  void OnStop(const StopGangOrder& order);
  void OnRelease(const ReleaseGangOrder& order);
  void Journal(const GangKey& key, ReportEvent report);
  void RankExited(const GangKey& key, int rank, RankExit exit);
  void KillRank(const GangKey& key, int rank, bool ordered);
  void KillGang(const GangKey& key);
  void Heartbeat(uint64_t life);
  std::vector<HeldGang> Held() const;

  World& world_;
  Training& training_;
  Link& link_;
  const WorkerId name_;
  const std::vector<Slot> slots_;
  const Bug bug_;

  bool running_ = false;
  uint64_t life_ = 0;  // counts processes; the incarnation
  uint64_t session_ = 0;
  bool welcomed_ = false;
  absl::Duration last_contact_ = absl::ZeroDuration(), dialled_ = absl::ZeroDuration();
  std::map<GangKey, Gang> gangs_;
  std::map<JobId, int64_t> highest_epoch_;
};

}  // namespace ll::sim
