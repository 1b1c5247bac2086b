#include "worker/agent/process_marker.h"

#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/file.h"

namespace ll {
namespace {

bool HasMark(pid_t pid, absl::string_view prefix) {
  const auto environment = ReadFile(absl::StrCat("/proc/", pid, "/environ"));
  if (!environment.ok()) return false;  // another user's, or gone
  const std::string wanted = absl::StrCat(kMarkName, "=", prefix);
  for (absl::string_view entry : absl::StrSplit(*environment, '\0')) {
    if (absl::StartsWith(entry, wanted)) return true;
  }
  return false;
}

std::set<pid_t> AllProcesses() {
  std::set<pid_t> out;
  DIR* dir = opendir("/proc");
  if (dir == nullptr) return out;
  while (const dirent* entry = readdir(dir)) {
    int pid;
    if (absl::SimpleAtoi(entry->d_name, &pid)) out.insert(pid);
  }
  closedir(dir);
  return out;
}

// Signals `pid` if it carries the mark. The descriptor pins the process before the look, so that
// the signal cannot reach another one that got the same number meanwhile. Returns the descriptor,
// -1 when it does not carry the mark.
int KillIfMarked(pid_t pid, absl::string_view prefix) {
  const int fd = PidfdOpen(pid);
  if (fd < 0) return -1;
  if (HasMark(pid, prefix) && syscall(SYS_pidfd_send_signal, fd, SIGKILL, nullptr, 0) == 0)
    return fd;
  close(fd);
  return -1;
}

}  // namespace

int PidfdOpen(pid_t pid) { return static_cast<int>(syscall(SYS_pidfd_open, pid, 0)); }

int KillMarked(absl::string_view prefix, int wait_ms) {
  LL_CHECK(!prefix.empty());
  const absl::Duration deadline = RealClock().Steady() + absl::Milliseconds(wait_ms);
  int signalled = 0;
  while (true) {
    int found = 0;
    for (pid_t pid : AllProcesses()) {
      if (pid == getpid()) continue;
      const int fd = KillIfMarked(pid, prefix);
      if (fd < 0) continue;
      ++found;
      pollfd ended{fd, POLLIN, 0};
      const int left_ms =
          static_cast<int>(absl::ToInt64Milliseconds(deadline - RealClock().Steady()));
      if (wait_ms > 0 && left_ms > 0) poll(&ended, 1, left_ms);
      close(fd);
    }
    signalled += found;
    // A process that was forking while we looked shows at the next look.
    if (found == 0 || RealClock().Steady() >= deadline) return signalled;
  }
}

}  // namespace ll
