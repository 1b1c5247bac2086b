// What reaches a running trainer from outside: two signals, and JSON lines on the control
// descriptor.
//
//   SIGTERM  checkpoint at the next step boundary and exit     SIGUSR1  checkpoint and go on
//   SIGINT   of a person at a terminal: the first as SIGTERM, the second ends at once
//   {"rendezvous":"host:port"}   where rank 0 listens; sent once to the other ranks
//   {"say":{...}}                a message to a rank that answers (kind generate)
//   end of file                  the agent died: this process exits with 30 at once
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/steady_cond_var.h"

namespace ll {

// Signals as seen by this process since InstallSignalHandlers. Async-signal-safe inside; the
// readers are thread-safe.
void InstallSignalHandlers();
// Ctrl-C too asks for a stop, and prints `line` on standard error; a second one ends the process at
// once. Nothing where SIGINT is ignored (a job that a script runs in the background). For programs
// that a person started: an agent's ranks lead process groups of their own and never get it.
// `line` ends with a newline and lives as long as the process.
void StopOnInterrupt(const char* line);
// From now on SIGTERM ends the process, with the exit code of one that stopped: for work of which
// nothing is kept.
void EndOnStop();
bool StopRequested();          // SIGTERM arrived, or SIGINT where that counts
bool TakeCheckpointRequest();  // SIGUSR1 arrived since the last call

// Reads the control descriptor on a thread of its own. Thread-safe.
class ControlChannel {
 public:
  // `fd` is the caller's and must outlive this object; -1 = there is no agent. `on_agent_death`
  // runs on the reading thread at end of file; the default ends the process.
  explicit ControlChannel(int fd, void (*on_agent_death)() = nullptr);
  ~ControlChannel();
  ControlChannel(const ControlChannel&) = delete;
  ControlChannel& operator=(const ControlChannel&) = delete;

  // Waits for the rendezvous line. DeadlineExceeded after `timeout`, InvalidArgument for a
  // malformed line.
  absl::StatusOr<std::string> WaitForRendezvous(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

  // Takes the oldest message (what `say` holds, as JSON); absent when none came within `timeout`.
  // At most 64 wait; more are dropped.
  std::optional<std::string> NextMessage(absl::Duration timeout) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void ReadLoop();
  void HandleLine(const std::string& line) ABSL_LOCKS_EXCLUDED(mu_);

  const int fd_;
  void (*const on_agent_death_)();
  int wake_fds_[2] = {-1, -1};  // a byte here ends the reading thread
  absl::Mutex mu_;
  SteadyCondVar heard_;  // all below
  std::string rendezvous_ ABSL_GUARDED_BY(mu_);
  std::string malformed_ ABSL_GUARDED_BY(mu_);
  std::deque<std::string> messages_ ABSL_GUARDED_BY(mu_);
  std::thread reader_;
};

}  // namespace ll
