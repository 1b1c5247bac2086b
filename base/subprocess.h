// Child processes without a shell.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/sandbox.h"

namespace ll {

struct SubprocessOptions {
  std::vector<std::string> argv;  // argv[0] is the program's path; PATH is not searched
  std::map<std::string, std::string> environment;  // added to or replacing the parent's
  bool inherit_environment = true;                 // false: `environment` is all there is
  std::string working_directory;                   // empty: the parent's
  // Child descriptor -> parent's descriptor. Every other descriptor above 2 is closed in the child.
  std::map<int, int> inherited_fds;
  // A process group of its own, so that the whole tree can be signalled.
  bool new_process_group = true;
  // The child gets SIGKILL when the thread that spawned it ends.
  bool die_with_parent = true;
  const SandboxRules* sandbox =
      nullptr;  // what it may touch from its first instruction on; null: all
  // How long the child may take until it executes the program: a network file system may be away.
  absl::Duration start_timeout = absl::Seconds(30);
  std::optional<UserIdentity> user;  // as whom it runs; this process is root then
};

struct ExitStatus {
  int exit_code = 0;  // meaningful when signal == 0
  int signal = 0;     // the signal that ended the process, or 0
};

// One child process. Not thread-safe. Destroying a running child kills its process group and waits.
class Subprocess {
 public:
  // Errors: the program cannot be executed (NotFound, PermissionDenied), not in time
  // (DeadlineExceeded), no resources.
  static absl::StatusOr<Subprocess> Start(const SubprocessOptions& options);
  // A child that this process had before it executed another program in its own place. `group`: it
  // leads a process group. Errors (NotFound): `pid` is no child of this process.
  static absl::StatusOr<Subprocess> Adopt(pid_t pid, bool group);
  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess();

  pid_t pid() const { return pid_; }
  // The exit status if the child has ended; never blocks.
  std::optional<ExitStatus> Poll();
  // Waits at most `timeout`; nullopt when the child still runs.
  std::optional<ExitStatus> Wait(absl::Duration timeout);
  // Signals the child's process group (the child alone without one). A child that has ended is left
  // alone.
  void Signal(int signal);

 private:
  Subprocess(pid_t pid, bool group) : pid_(pid), group_(group) {}
  void KillAndReap();
  pid_t pid_ = -1;
  bool group_ = false;
  std::optional<ExitStatus> exit_;
};

}  // namespace ll
