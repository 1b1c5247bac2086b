#include "base/subprocess.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

std::string ReadAll(int fd) {
  std::string out;
  char buffer[256];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) out.append(buffer, n);
  return out;
}

TEST(SubprocessTest, PassesDescriptorsEnvironmentAndExitCode) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  LL_ASSERT_OK_AND_ASSIGN(
      Subprocess child, Subprocess::Start({.argv = {"/bin/sh", "-c", "echo $GREETING >&5; exit 7"},
                                           .environment = {{"GREETING", "hello"}},
                                           .inherited_fds = {{5, fds[1]}}}));
  close(fds[1]);
  EXPECT_EQ(ReadAll(fds[0]), "hello\n");
  close(fds[0]);
  auto exit = child.Wait(absl::Seconds(10));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->exit_code, 7);
  EXPECT_EQ(exit->signal, 0);
}

bool g_children_hang = false;

// As one whose program lies on a network file system that is away.
TEST(SubprocessTest, AProgramThatNeverBeginsIsGivenUp) {
  pthread_atfork(nullptr, nullptr, [] {
    if (!g_children_hang) return;
    alarm(20);
    pause();
  });
  g_children_hang = true;
  const auto child =
      Subprocess::Start({.argv = {"/bin/true"}, .start_timeout = absl::Milliseconds(200)});
  g_children_hang = false;
  EXPECT_THAT(child, StatusIs(absl::StatusCode::kDeadlineExceeded, "/bin/true"));
  EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1);  // nothing is left of it
}

TEST(SubprocessTest, MissingProgramIsNotFound) {
  EXPECT_THAT(Subprocess::Start({.argv = {"/no/such/program"}}),
              StatusIs(absl::StatusCode::kNotFound, "/no/such/program"));
}

TEST(SubprocessTest, SignalReachesTheWholeTree) {
  int fds[2];
  ASSERT_EQ(pipe2(fds, O_CLOEXEC), 0);
  LL_ASSERT_OK_AND_ASSIGN(Subprocess child,
                          Subprocess::Start({.argv = {"/bin/sh", "-c", "sleep 600 & wait"},
                                             .inherited_fds = {{5, fds[1]}}}));
  close(fds[1]);
  EXPECT_FALSE(child.Wait(absl::Milliseconds(100)).has_value());
  child.Signal(SIGKILL);
  auto exit = child.Wait(absl::Seconds(10));
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->signal, SIGKILL);
  // The pipe closes only when the grandchild is gone as well.
  EXPECT_EQ(ReadAll(fds[0]), "");
  close(fds[0]);
}

}  // namespace
}  // namespace ll
