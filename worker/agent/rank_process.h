// One trainer process: its pipes, its end, and the end of everything it started. Not thread-safe;
// must be used on the thread that lives as long as the agent, because the kernel ties the trainer's
// life to the thread that forked it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/subprocess.h"

namespace ll {

struct RankCommand {
  // The trainer and its arguments; "--events-fd A --control-fd B" is appended.
  std::vector<std::string> argv;
  std::map<std::string, std::string> environment;  // all of it
  std::string working_directory;
  std::string log_path;                         // gets standard output and standard error, appended
  std::string mark;                             // process_marker.h
  std::shared_ptr<const SandboxRules> sandbox;  // null: none
  std::optional<UserIdentity> user;
};

// A process that another program, executed in the agent's place, goes on with. Descriptors are
// inherited by it.
struct RankHandover {
  pid_t pid = -1;
  int events_fd = -1, control_fd = -1;
  std::string unwritten;      // to the control descriptor
  std::string half_line;      // of the events
  int64_t dropped_bytes = 0;  // of an overlong line being received
  std::optional<absl::Duration> kill_at;
  std::string mark;
};

class RankProcess {
 public:
  // Errors: not a child of this process, or its descriptors are not open.
  static absl::StatusOr<std::unique_ptr<RankProcess>> Adopt(const RankHandover& from);
  // What Adopt wants; this object goes on.
  virtual RankHandover Handover() const = 0;

  // Errors: the program cannot be run, the log cannot be opened, no descriptors.
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(const RankCommand& command);
  virtual ~RankProcess() = default;  // kills what runs

  virtual pid_t pid() const = 0;
  // Readable when there are events or the end of them; -1 once the end was read.
  virtual int events_fd() const = 0;
  // Readable when the process has ended.
  virtual int exit_fd() const = 0;

  // Reads what is there without blocking and gives each whole line, without its newline, to
  // `on_line`. `on_overlong` gets the length of a line that was too long and dropped.
  virtual void ReadEvents(const std::function<void(absl::string_view)>& on_line,
                          const std::function<void(int64_t)>& on_overlong) = 0;

  // Writes one line to the control descriptor; what the pipe does not take follows with Tick. A
  // trainer that ended, or that has left 4 MB unread, loses it.
  virtual void SendControlLine(absl::string_view line) = 0;

  // SIGTERM now and, after `grace`, SIGKILL (by Tick). A second call can only shorten the grace.
  virtual void Stop(absl::Duration now, absl::Duration grace) = 0;
  // SIGKILL to the process group; the rest of the tree follows when the end is noticed.
  virtual void Kill() = 0;
  virtual void Tick(absl::Duration now) = 0;

  // How the process ended; its last events are read first by the caller. Also ends what the process
  // left behind.
  virtual std::optional<ExitStatus> Poll() = 0;
};

}  // namespace ll
