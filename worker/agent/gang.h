// This host's part of one attempt of a job: its rank processes, what they say, and what of it the
// coordinator knows.
//
//   trainer --(events pipe)--> HandleEvent --> events.jsonl (spool) --> Telemetry, by offset
//                                    \--> facts --> ReportJournal --> Report, by sequence, until
//                                    acknowledged
//   trainer's stdout, stderr --> rank-RR.log --> Telemetry, by offset
//
// Not thread-safe.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "proto/agent_state.pb.h"
#include "proto/workers.pb.h"
#include "worker/agent/host.h"
#include "worker/agent/orders.h"
#include "worker/agent/rank_process.h"
#include "worker/agent/report_journal.h"
#include "worker/agent/spool.h"
#include "worker/agent/trainer_event.h"
#include "worker/agent/trainer_sandbox.h"

namespace ll {

// What every gang of this agent shares.
struct GangSetup {
  Host* host = &RealHost();
  std::string trainer;    // absolute path
  std::string job_store;  // OUT is JOB_STORE/JOB_ID/eNNNN
  std::string
      state_dir;  // the agent's own notes: STATE_DIR/JOB_ID.eNNNN/{order.json,reports.jsonl}
  std::string fabric_host;  // rank 0 listens here
  std::string incarnation;
  int trainer_threads = 0;                        // 0: the trainer decides
  std::shared_ptr<const TrainerSandbox> sandbox;  // null: none
  // Environment of the process on a slot.
  std::function<std::map<std::string, std::string>(int slot)> slot_environment;
  // Called for every event of a rank; for metrics.
  std::function<void(const GangKey&, int rank, const TrainerEvent&)> on_event;
  std::function<void()> on_dropped_line;
};

class Gang {
 public:
  using Sender = std::function<void(v1::AgentMessage)>;

  // Makes the folders, writes order and spec, and starts every rank. On an error nothing runs and
  // nothing is kept. `spec` is the order's spec with paths resolved.
  static absl::StatusOr<std::unique_ptr<Gang>> Start(const GangSetup& setup, Clock& clock,
                                                     const v1::StartGang& order,
                                                     const v1::JobSpec& spec);
  // A gang that is known only to be refused: has a journal with that one fact and no process.
  static std::unique_ptr<Gang> Refused(const GangSetup& setup, Clock& clock,
                                       const v1::StartGang& order, v1::StartRefused refusal);
  // What an earlier agent process left in STATE_DIR/NAME. Its ranks are gone; ranks whose end was
  // not reported get an exit report that says so. Errors: the notes cannot be read.
  static absl::StatusOr<std::unique_ptr<Gang>> Reopen(const GangSetup& setup, Clock& clock,
                                                      const std::string& name);

  // The same gang in the program that is executed in this process's place; this object goes on.
  v1::KeptGang Handover() const;
  // Goes on with one that Handover gave. Errors: a process or descriptor of it is not there.
  static absl::StatusOr<std::unique_ptr<Gang>> Adopt(const GangSetup& setup, Clock& clock,
                                                     const v1::KeptGang& kept);

  const GangKey& key() const { return key_; }
  const v1::StartGang& order() const { return order_; }
  bool running() const;  // a process is alive
  std::vector<int> BusySlots() const;
  std::map<int, int> LiveRanks() const;  // with a living process: rank → slot

  // ---- processes
  void AddPollFds(std::vector<int>& fds) const;
  // Reads events, notices ends, kills what outlived its grace.
  void Poll(absl::Duration now);
  // `ordered`: the coordinator wants it (a checkpoint exit is then a pause, not a surprise).
  void Stop(absl::Duration now, absl::Duration grace, bool ordered, const std::string& reason);
  void Kill(bool ordered, const std::string& reason);
  // Tells the ranks that wait for it where rank 0 listens. Later calls do nothing.
  void SendRendezvous(const std::string& address);
  // Gives rank 0 a message, one JSON object; one that is not here or has ended loses it.
  void Say(absl::string_view line);

  // ---- the coordinator
  v1::HeldGang Describe() const;
  // A session begins: go on after what the coordinator has.
  void Resume(const v1::Verdict* verdict, const std::vector<v1::TelemetryAck>& telemetry);
  // Sends telemetry and unsent reports. An exit is sent after the rank's last events, so that a
  // watcher sees them.
  void Send(absl::Duration now, const Sender& send);
  void AcknowledgeReports(int64_t sequence) { journal_.Acknowledge(sequence); }
  void AcknowledgeTelemetry(const v1::TelemetryAck& ack);
  void Release(absl::Duration now);
  bool released() const { return released_at_.has_value(); }
  bool AllReported() const { return journal_.unacknowledged().empty(); }
  int64_t UnacknowledgedReports() const {
    return static_cast<int64_t>(journal_.unacknowledged().size());
  }
  // The coordinator has everything (or had its time to take the rest of the telemetry): the notes
  // can go.
  bool Forgettable(absl::Duration now) const;
  void RemoveNotes() const;

 private:
  struct Rank {
    int rank = 0, slot = 0;
    std::unique_ptr<RankProcess> process;  // absent: ended, or of an earlier agent process
    std::optional<v1::ExitReport> exit;
    LineFile events;
    TelemetryCursor events_cursor, log_cursor;
    bool training = false, knows_rendezvous = false;
    bool ordered = false;
    std::string stop_reason;  // why the agent stopped it, when it did
    TrainerEvent error;       // the last error event
    std::optional<google::protobuf::Struct> result;
    int warnings = 0;
    absl::Duration exited_at;
    Rank(int rank_index, int slot_index, const std::string& out, Files& files);
  };

  Gang(const GangSetup& setup, Clock& clock, v1::StartGang order, ReportJournal journal);
  static std::string NotesDir(const GangSetup& setup, const v1::StartGang& order);
  absl::Status AdoptRank(Rank& rank, const v1::KeptRank& kept);
  absl::Status StartRank(Rank& rank, const v1::JobSpec& spec);
  absl::Status ConfineRank(RankCommand& command, const v1::JobSpec& spec) const;
  void HandleEvent(Rank& rank, absl::string_view line);
  void Warn(Rank& rank, const std::string& message);
  void WriteEvent(Rank& rank, absl::string_view line);
  void OnExit(Rank& rank, const ExitStatus& status);
  v1::Report ReportOf(const Rank& rank) const;
  bool MayWait(const v1::Report& report, absl::Duration now) const;

  const GangSetup& setup_;
  Clock& clock_;
  GangKey key_;
  v1::StartGang order_;
  std::string out_;
  std::vector<std::unique_ptr<Rank>> ranks_;
  ReportJournal journal_;
  int64_t sent_sequence_ = 0;
  std::optional<absl::Duration> released_at_, ended_at_;
};

}  // namespace ll
