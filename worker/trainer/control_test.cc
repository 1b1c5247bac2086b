#include "worker/trainer/control.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"

namespace ll {
namespace {

std::atomic<int> deaths = 0;

struct Pipe {
  int fds[2];
  Pipe() { EXPECT_EQ(pipe(fds), 0); }
  ~Pipe() {
    close(fds[0]);
    if (fds[1] >= 0) close(fds[1]);
  }
  void Send(const std::string& text) {
    EXPECT_EQ(write(fds[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
};

TEST(Control, RendezvousArrivesInPieces) {
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  pipe.Send("{\"rendezvous\":\"127.0.");
  pipe.Send("0.1:4711\"}\n");
  LL_ASSERT_OK_AND_ASSIGN(const std::string address, control.WaitForRendezvous(absl::Seconds(10)));
  EXPECT_EQ(address, "127.0.0.1:4711");
}

TEST(Control, MissingRendezvousNamesThePhase) {
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  EXPECT_THAT(control.WaitForRendezvous(absl::Milliseconds(20)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, "rendezvous"));
}

TEST(Control, GarbageIsAnError) {
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  pipe.Send("{\"rendez\":1}\n");
  EXPECT_THAT(control.WaitForRendezvous(absl::Seconds(10)),
              StatusIs(absl::StatusCode::kInvalidArgument, "rendez"));
}

// Whoever walked or printed it would run out of stack.
TEST(Control, DeepNestingIsGarbage) {
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  pipe.Send(absl::StrCat("{\"say\":", std::string(5000, '['), std::string(5000, ']'), "}\n"));
  EXPECT_THAT(control.WaitForRendezvous(absl::Seconds(10)),
              StatusIs(absl::StatusCode::kInvalidArgument, "[[["));
  EXPECT_EQ(control.NextMessage(absl::ZeroDuration()), std::nullopt);
}

TEST(Control, EndOfFileMeansTheAgentDied) {
  deaths = 0;
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  close(pipe.fds[1]);
  pipe.fds[1] = -1;
  for (int i = 0; i < 20'000 && deaths == 0; ++i) usleep(1000);
  EXPECT_EQ(deaths, 1);
}

TEST(Control, MessagesWaitInOrderAndOnlySoMany) {
  Pipe pipe;
  ControlChannel control(pipe.fds[0], [] { ++deaths; });
  EXPECT_EQ(control.NextMessage(absl::Milliseconds(1)), std::nullopt);
  for (int i = 0; i < 70; ++i) pipe.Send(absl::StrCat("{\"say\":{\"n\":", i, "}}\n"));
  pipe.Send("{\"rendezvous\":\"127.0.0.1:1\"}\n");  // behind them: all of them were read
  LL_ASSERT_OK(control.WaitForRendezvous(absl::Seconds(10)).status());
  for (int i = 0; i < 64; ++i)
    EXPECT_EQ(control.NextMessage(absl::ZeroDuration()), absl::StrCat("{\"n\":", i, "}"));
  EXPECT_EQ(control.NextMessage(absl::ZeroDuration()), std::nullopt);
  pipe.Send("{\"say\":{\"n\":70}}\n");
  EXPECT_EQ(control.NextMessage(absl::Seconds(10)), "{\"n\":70}");
}

TEST(Control, SignalsAreRemembered) {
  InstallSignalHandlers();
  EXPECT_FALSE(TakeCheckpointRequest());
  raise(SIGUSR1);
  EXPECT_TRUE(TakeCheckpointRequest());
  EXPECT_FALSE(TakeCheckpointRequest());
  EXPECT_FALSE(StopRequested());
  raise(SIGTERM);
  EXPECT_TRUE(StopRequested());
}

}  // namespace
}  // namespace ll
