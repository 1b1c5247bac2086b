// Notices within seconds that a rank of the gang is dead, stopped or gone, and says which, what it
// did last and in which phase.
//
// Every rank has a connection of its own to rank 0, served by a thread of its own, and says on it
// four times a second what it is doing. A connection that closes is a death, noticed at once; one
// that says nothing is a process that does not run at all (SIGSTOP, a frozen host), because a rank
// that is merely slow goes on talking. The rendezvous store would do for the second but not for the
// first, and a wait in it blocks everybody else who asks it. Rank 0 tells the others who is lost;
// when rank 0 itself is lost everybody sees it.
//
// Silence is counted in the watcher's own ticks: one that was stopped itself (the whole gang, a
// sleeping laptop) accuses nobody when it goes on.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/steady_cond_var.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

struct WatchdogOptions {
  absl::Duration silence = absl::Seconds(10);  // without a word from a rank until it counts as lost
  // Runs on the watch's thread once a rank is lost and this one goes on: it waits in an operation
  // that nobody will finish (`patience_waiting`), computes on (`patience_computing`), or has failed
  // by itself and is still there (`patience_ending`, from the failure on: a checkpoint may still be
  // on its way to the disk, but what else is left may wait for the lost rank as well).
  std::function<void(const absl::Status& lost)> on_lost;
  absl::Duration patience_waiting = absl::Seconds(1);
  absl::Duration patience_computing = absl::Seconds(5);
  absl::Duration patience_ending = absl::Seconds(30);
};

class Watchdog : public PeerWatch {
 public:
  // Rank 0 publishes its address in `store`; the others connect. `store` is used only here.
  static absl::StatusOr<std::shared_ptr<Watchdog>> Start(RendezvousStore& store,
                                                         const CommOptions& comm,
                                                         const WatchdogOptions& options);
  // Leaves in peace: the others see no death in it.
  ~Watchdog() override;

  void Enter(const char* phase) override ABSL_LOCKS_EXCLUDED(mu_);
  void Begin(const char* operation, const char* group, int64_t sequence) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void End() override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Explain(absl::Status error) override ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Failed() override ABSL_LOCKS_EXCLUDED(mu_);
  void Check(std::function<absl::Status()> check) override ABSL_LOCKS_EXCLUDED(mu_);

  // This rank ends by `error`: the others learn that it is to blame, unless Explain has named
  // another. An operation that failed with nobody lost is this rank's to tell: what broke is
  // between it and a peer, and the others would fail after it and know nothing.
  void Fail(const absl::Status& error) ABSL_LOCKS_EXCLUDED(mu_);
  // Tells the others that this rank leaves, in peace or with what Fail was given. The destructor
  // does it too.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // What a rank does, as it goes over the wire.
  struct State {
    int32_t rank = 0;
    int32_t waiting = 0;   // in `operation`, else computing after it
    int64_t count = 0;     // operations of all groups so far: who is behind
    int64_t sequence = 0;  // of `operation` in `group`
    char phase[32] = "start";
    char operation[32] = "";
    char group[32] = "";
  };
  enum class Kind : int32_t { kHello, kState, kEnd, kLost };
  // One message, of one size; both ends are the same program.
  struct Message {
    uint64_t token = 0;  // of this gang's watch
    Kind kind = Kind::kState;
    int32_t error = 0;         // kLost: the rank has said so itself
    State about;               // of the sender; kLost: of the rank that is lost
    State behind;              // from rank 0: of the rank with the fewest operations
    int32_t silent_ticks = 0;  // from rank 0: of the rank that has said nothing for longest
    char reason[160] = "";     // kLost
  };
  struct Link {
    int fd = -1;
    State state;
    int silent_ticks = 0;
    bool known = false;  // it has said which rank it is
    bool heard = false, ended = false;
    std::string input;  // part of a message
  };

  Watchdog(const CommOptions& comm, const WatchdogOptions& options, uint64_t token);
  void Run();
  void Poll(absl::Duration wait);
  void Introduce();  // who has said hello has a rank
  void Tick();
  void RunChecks() ABSL_LOCKS_EXCLUDED(mu_);
  void Leave();
  // Returns the first word of a lost rank.
  std::optional<Message> Read(Link& link);
  std::optional<Message> Handle(Link& link, const Message& message);
  void Accept();
  void Send(Link& link, const Message& message);
  void Lost(const Message& verdict);  // told or found out
  Message Verdict(const State& about, const std::string& reason) const;
  static std::string Describe(const State& state);

  const int rank_, world_size_;
  const WatchdogOptions options_;
  const uint64_t token_;
  int listen_fd_ = -1;
  bool accepts_ = true;
  int told_silent_ticks_ = 0, most_silent_ticks_ = 0;
  absl::Duration check_failed_at_ = absl::InfiniteDuration();
  int wake_fds_[2] = {-1, -1};
  std::map<int, Link> links_;        // by rank; the thread's alone
  std::vector<Link> strangers_;      // connected, not yet introduced
  std::optional<Message> told_all_;  // rank 0's verdict, for those who are introduced after it

  absl::Mutex mu_;
  SteadyCondVar told_;  // lost_
  State mine_ ABSL_GUARDED_BY(mu_);
  // The fewest operations; absent until rank 0 has said.
  std::optional<State> behind_ ABSL_GUARDED_BY(mu_);
  bool quiet_ ABSL_GUARDED_BY(mu_) = false;  // a rank says nothing: it may be lost soon
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::string failure_ ABSL_GUARDED_BY(mu_);  // this rank's own
  absl::Status lost_ ABSL_GUARDED_BY(mu_);    // OK until a rank is lost
  absl::Status failed_ ABSL_GUARDED_BY(mu_);  // of its first operation that failed, explained
  std::vector<std::function<absl::Status()>> checks_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace ll
