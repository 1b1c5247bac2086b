// The agent executes another program in its own place (an upgrade) and goes on: same process, same
// children, same incarnation, so that no rank is started anew.
//
//   SIGUSR2 → `PROGRAM reexec-check` with the state and the agent's own flags, as a child
//          → it ends well and names the state's format → execve(PROGRAM), the state in a memfd
//
// Until execve has succeeded nothing has changed, and every fault before it leaves the running
// agent as it was. PROGRAM is the path that this one was started by, so what was installed there
// meanwhile.
#pragma once

#include <sys/stat.h>
#include <sys/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/subprocess.h"
#include "proto/agent_state.pb.h"
#include "worker/agent/agent.h"

namespace ll {

// The format that this program writes, and the only one that it reads.
inline constexpr int kAgentStateFormat = 1;
// Holds the number of a descriptor with an AgentState.
inline constexpr char kAgentStateVariable[] = "LL_AGENT_STATE_FD";

// Whether an agent with these flags can go on from `state`. Errors name the flag that differs.
absl::Status CheckAgentState(const v1::AgentState& state, const AgentOptions& options);

// What this process was handed by the program in whose place it stands; nullopt: it was started as
// others are. Clears the variable and closes the descriptor. Call before threads start.
absl::StatusOr<std::optional<v1::AgentState>> TakeAgentState();

// Not thread-safe; for the thread that started the ranks, since the kernel ties their lives to it.
class Reexec {
 public:
  static constexpr absl::Duration kCheckDeadline = absl::Seconds(60);

  // `argv` as main got it. Call at the process's start: a relative argv[0] is resolved here.
  explicit Reexec(std::vector<std::string> argv);

  const std::string& program() const { return program_; }
  bool checking() const { return check_.has_value(); }
  // Starts the check. Errors: one is under way; the program cannot be started.
  absl::Status Begin(const v1::AgentState& state, absl::Duration now);
  // The outcome once there is one: OK, or why the program is not to be executed.
  std::optional<absl::Status> Poll(absl::Duration now);
  // Executes the checked program; returns on an error alone, after which everything is as before.
  // `environment` ("NAME=VALUE") is added to this process's.
  absl::Status Execute(const v1::AgentState& state, const std::vector<std::string>& environment);

 private:
  struct Check {
    Subprocess process;
    int out_fd = -1, err_fd = -1;  // files in memory
    absl::Duration deadline;
    struct stat program;
  };
  absl::Status Judge(const Check& check, const ExitStatus& exit) const;

  std::vector<std::string> argv_;
  std::string program_;
  std::optional<Check> check_;
  struct stat checked_ = {};  // the program that passed
};

// `ll-worker reexec-check FLAGS...`: prints what this program reads and tries to go on from the
// state, short of doing it. Exit status 0 or 1.
int RunReexecCheck(int argc, char** argv);

// WORK_DIR/reexec.json, by which RequestReexec hears of the outcome: who runs and what became of
// the requests so far.
struct ReexecRecord {
  pid_t pid = 0;
  int64_t attempts = 0, reexecs = 0;
  std::string version, outcome;
};
absl::StatusOr<ReexecRecord> ReadReexecRecord(const std::string& work_dir);
absl::Status WriteReexecRecord(const std::string& work_dir, const ReexecRecord& record);

// `ll-worker reexec`: asks the agent of `work_dir` and waits for the outcome, which is returned.
// Errors: no agent runs there, it knows nothing of this (FailedPrecondition), it refused (Aborted,
// with its reason), it ended (Unavailable), no outcome in time.
absl::StatusOr<std::string> RequestReexec(const std::string& work_dir, absl::Duration timeout);

}  // namespace ll
