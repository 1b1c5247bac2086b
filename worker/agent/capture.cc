#include "worker/agent/capture.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/subprocess.h"

namespace ll {

absl::StatusOr<Captured> CaptureOutput(const std::vector<std::string>& argv,
                                       absl::Duration timeout) {
  constexpr size_t kMost = 1 << 20;
  int fds[2];
  if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) return ErrnoStatus(errno, "cannot make", "a pipe");
  SubprocessOptions options;
  options.argv = argv;
  options.inherited_fds = {{1, fds[1]}};
  absl::StatusOr<Subprocess> process = Subprocess::Start(options);
  close(fds[1]);
  Captured out;
  const absl::Duration deadline = RealClock().Steady() + timeout;
  bool open = process.ok();
  while (open && RealClock().Steady() < deadline) {
    pollfd wait{fds[0], POLLIN, 0};
    poll(&wait, 1, 100);
    char buffer[4096];
    const ssize_t n = read(fds[0], buffer, sizeof buffer);
    if (n > 0 && out.output.size() < kMost) out.output.append(buffer, n);
    if (n == 0) open = false;
  }
  close(fds[0]);
  if (!process.ok()) return process.status();
  const auto exit = process->Wait(deadline - RealClock().Steady());
  if (!exit) {
    return absl::DeadlineExceededError(
        absl::StrCat(argv[0], " did not end within ", absl::FormatDuration(timeout)));
  }
  out.exit_code = exit->signal != 0 ? 128 + exit->signal : exit->exit_code;
  return out;
}

}  // namespace ll
