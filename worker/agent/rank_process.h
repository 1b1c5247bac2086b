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
  std::map<std::string, std::string> environment;
  std::string working_directory;
  std::string log_path;  // gets standard output and standard error, appended
  std::string mark;      // process_marker.h
};

class RankProcess {
 public:
  // Errors: the program cannot be run, the log cannot be opened, no descriptors.
  static absl::StatusOr<std::unique_ptr<RankProcess>> Start(const RankCommand& command);
  ~RankProcess();

  pid_t pid() const { return process_.pid(); }
  // Readable when there are events or the end of them; -1 once the end was read.
  int events_fd() const { return events_fd_; }
  // Readable when the process has ended.
  int exit_fd() const { return exit_fd_; }

  // Reads what is there without blocking and gives each whole line, without its newline, to
  // `on_line`. `on_overlong` gets the length of a line that was too long and dropped.
  void ReadEvents(const std::function<void(absl::string_view)>& on_line,
                  const std::function<void(int64_t)>& on_overlong);

  // Writes one line to the control descriptor; what the pipe does not take follows with Tick. A
  // trainer that ended, or that has left 4 MB unread, loses it.
  void SendControlLine(absl::string_view line);

  // SIGTERM now and, after `grace`, SIGKILL (by Tick). A second call can only shorten the grace.
  void Stop(absl::Duration now, absl::Duration grace);
  // SIGKILL to the process group; the rest of the tree follows when the end is noticed.
  void Kill();
  void Tick(absl::Duration now);

  // How the process ended; its last events are read first by the caller. Also ends what the process
  // left behind.
  std::optional<ExitStatus> Poll();

 private:
  RankProcess(Subprocess process, int events_fd, int control_fd, int exit_fd, std::string mark);
  void Consume(absl::string_view bytes, const std::function<void(absl::string_view)>& on_line,
               const std::function<void(int64_t)>& on_overlong);
  void FlushControl();

  Subprocess process_;
  int events_fd_, control_fd_, exit_fd_;
  std::string mark_;
  std::string control_;        // not yet written to the control descriptor
  std::string partial_;        // of the line being received
  int64_t dropped_bytes_ = 0;  // of an overlong line being received
  std::optional<absl::Duration> kill_at_;
  bool ended_ = false;
};

}  // namespace ll
