#include "worker/trainer/comm/watchdog.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/status_matchers.h"
#include "worker/trainer/comm/sockets.h"
#include "worker/trainer/error_class.h"

namespace ll {
namespace {

constexpr int kRanks = 3;

struct Gang {
  std::unique_ptr<RendezvousStore> stores[kRanks];
  std::shared_ptr<Watchdog> watches[kRanks];
  std::string address;
  absl::Duration silence = absl::Seconds(10), patience = absl::ZeroDuration(),
                 patience_ending = absl::Milliseconds(500);
  absl::Mutex mu;
  absl::Status lost[kRanks] ABSL_GUARDED_BY(mu);

  void Start(const std::vector<int>& ranks = {0, 1, 2}) {
    CommOptions comm;
    comm.world_size = kRanks;
    comm.nonce = "test";
    comm.rendezvous_timeout = absl::Seconds(20);
    for (const int rank : ranks) {
      comm.rank = rank;
      if (rank == 0) {
        LL_ASSERT_OK_AND_ASSIGN(stores[0], RendezvousStore::Listen(comm, &address));
      } else {
        LL_ASSERT_OK_AND_ASSIGN(stores[rank], RendezvousStore::Connect(comm, address));
      }
      WatchdogOptions options;
      options.silence = silence;
      options.patience_waiting = options.patience_computing = patience;
      options.patience_ending = patience_ending;
      options.on_lost = [this, rank](const absl::Status& status) {
        absl::MutexLock lock(&mu);
        lost[rank] = status;
      };
      LL_ASSERT_OK_AND_ASSIGN(watches[rank], Watchdog::Start(*stores[rank], comm, options));
    }
  }
  absl::Status LostAt(int rank) {
    const auto told = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return !lost[rank].ok(); };
    absl::MutexLock lock(&mu);
    mu.AwaitWithTimeout(absl::Condition(&told), absl::Seconds(10));
    return lost[rank];
  }
};

TEST(Watchdog, ARankThatFailsIsNamedToAllOthersWithItsPhase) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[2]->Enter("backward");
  gang.watches[2]->Begin("all-reduce", "world", 17);
  gang.watches[2]->End();
  gang.watches[2]->Fail(absl::ResourceExhaustedError("no room for logits"));
  gang.watches[2].reset();
  for (const int rank : {0, 1}) {
    const absl::Status lost = gang.LostAt(rank);
    EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable, "rank 2"));
    EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable,
                               "computing after all-reduce 17 of world in phase backward"));
    EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable, "no room for logits"));
    EXPECT_EQ(ErrorClassOf(lost), ErrorClass::kInfrastructure);
  }
}

TEST(Watchdog, RankZeroIsNamedToo) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[0]->Fail(absl::InternalError("disk"));
  gang.watches[0].reset();
  EXPECT_THAT(gang.LostAt(1), StatusIs(absl::StatusCode::kUnavailable, "rank 0"));
  EXPECT_THAT(gang.LostAt(2), StatusIs(absl::StatusCode::kUnavailable, "rank 0"));
}

// Rank 2 has failed before rank 1 has said who it is.
TEST(Watchdog, WhoComesLateIsToldWhatTheOthersWereTold) {
  Gang gang;
  gang.patience = gang.patience_ending = absl::Seconds(30);
  ASSERT_NO_FATAL_FAILURE(gang.Start({0, 2}));
  gang.watches[2]->Fail(absl::InternalError("disk"));
  gang.watches[2].reset();
  EXPECT_THAT(gang.watches[0]->Explain(absl::UnavailableError("timed out")),
              StatusIs(absl::StatusCode::kUnavailable, "rank 2"));
  gang.patience = absl::ZeroDuration();
  ASSERT_NO_FATAL_FAILURE(gang.Start({1}));
  EXPECT_THAT(gang.LostAt(1), StatusIs(absl::StatusCode::kUnavailable, "rank 2"));
}

TEST(Watchdog, LeavingInPeaceIsNoLoss) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[1].reset();
  absl::SleepFor(absl::Seconds(1));
  gang.watches[0].reset();
  absl::SleepFor(absl::Seconds(1));
  absl::MutexLock lock(&gang.mu);
  for (const absl::Status& status : gang.lost) EXPECT_TRUE(status.ok()) << status;
}

TEST(Watchdog, AFailedOperationIsExplained) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[1]->Begin("exchange", "context 0", 4);
  gang.watches[0]->Begin("exchange", "context 0", 4);
  // Nobody is lost: rank 2, which did not get there, is furthest behind.
  EXPECT_THAT(gang.watches[1]->Explain(absl::UnavailableError("timed out")),
              StatusIs(absl::StatusCode::kUnavailable, "timed out; furthest behind: rank 2"));
  // A rank that has failed and does not end is ended; the others go on.
  EXPECT_THAT(gang.LostAt(1), StatusIs(absl::StatusCode::kUnavailable, "timed out"));
  for (const int rank : {0, 2}) {
    EXPECT_THAT(gang.LostAt(rank), StatusIs(absl::StatusCode::kUnavailable,
                                            "rank 1: is lost (it ended with an error, "
                                            "infrastructure: timed out"));
  }
}

// Nobody is furthest behind.
TEST(Watchdog, ARankAsFarAsThisOneIsNotNamed) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  for (const auto& watch : gang.watches) watch->Begin("all-reduce", "world", 1);
  absl::SleepFor(absl::Milliseconds(600));
  const absl::Status failed = gang.watches[1]->Explain(absl::UnavailableError("reset"));
  EXPECT_EQ(failed.message(),
            "reset; this is rank 1, waiting in all-reduce 1 of world in phase start");
}

// A link between two ranks breaks and both live: the others fail after them, and hear from whom.
TEST(Watchdog, ABrokenLinkIsToldByItsEnds) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  const absl::Status failed = gang.watches[1]->Explain(absl::UnavailableError("reset by peer"));
  EXPECT_FALSE(CausingRankOf(failed).has_value());
  EXPECT_EQ(gang.watches[1]->Failed(), failed);
  gang.watches[1]->Fail(failed);
  gang.watches[1].reset();
  for (const int rank : {0, 2}) {
    const absl::Status lost =
        gang.watches[static_cast<size_t>(rank)]->Explain(absl::UnavailableError("closed"));
    EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable, "reset by peer"));
    EXPECT_EQ(CausingRankOf(lost), 1);
    EXPECT_EQ(ErrorClassOf(lost), ErrorClass::kInfrastructure);
  }
}

// An operation that nobody waits for on the host fails on a thread of its transport.
TEST(Watchdog, ATransportThatFailsEndsTheRank) {
  Gang gang;
  std::atomic<bool> broken = false;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[1]->Enter("backward");
  gang.watches[1]->Check([] { return absl::OkStatus(); });
  gang.watches[1]->Check([&broken] {
    return broken ? absl::UnavailableError("NCCL: remote error") : absl::OkStatus();
  });
  absl::SleepFor(absl::Milliseconds(600));
  {
    absl::MutexLock lock(&gang.mu);
    EXPECT_TRUE(gang.lost[1].ok()) << gang.lost[1];
  }
  broken = true;
  const absl::Status lost = gang.LostAt(1);
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable, "NCCL: remote error; this is rank 1"));
  EXPECT_THAT(lost, StatusIs(absl::StatusCode::kUnavailable, "in phase backward"));
  EXPECT_EQ(ErrorClassOf(lost), ErrorClass::kInfrastructure);
  for (const int rank : {0, 2}) {
    EXPECT_THAT(gang.LostAt(rank), StatusIs(absl::StatusCode::kUnavailable, "NCCL: remote error"));
    EXPECT_EQ(CausingRankOf(gang.LostAt(rank)), 1);
  }
}

// As on a host that is gone: its peers' operations fail before it has been silent for long enough.
TEST(Watchdog, ASilentRankIsNamedThoughOthersFailFirst) {
  absl::Notification goes_on;
  Gang gang;
  gang.silence = absl::Seconds(5);
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  gang.watches[2]->Check([&goes_on] {
    goes_on.WaitForNotification();
    return absl::OkStatus();
  });
  absl::SleepFor(absl::Milliseconds(500));
  gang.watches[0]->Check([] { return absl::UnavailableError("NCCL: remote error"); });
  EXPECT_EQ(CausingRankOf(gang.watches[1]->Explain(absl::UnavailableError("no route to host"))), 2);
  EXPECT_EQ(CausingRankOf(gang.LostAt(0)), 2) << gang.LostAt(0);
  goes_on.Notify();
}

// No more descriptors than are open, while it lives.
class NoDescriptorLeft {
 public:
  explicit NoDescriptorLeft(int spare = 0) {
    getrlimit(RLIMIT_NOFILE, &before_);
    const int next = dup(0);
    close(next);
    rlimit now = before_;
    now.rlim_cur = static_cast<rlim_t>(next + spare);
    setrlimit(RLIMIT_NOFILE, &now);
  }
  ~NoDescriptorLeft() { setrlimit(RLIMIT_NOFILE, &before_); }

 private:
  rlimit before_ = {};
};

absl::Duration ProcessorTime() {
  timespec time = {};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

TEST(Watchdog, WithoutADescriptorItWaitsForOne) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  LL_ASSERT_OK_AND_ASSIGN(const std::string published, gang.stores[0]->Get("watch"));
  const std::vector<std::string> address = absl::StrSplit(published, ' ');
  LL_ASSERT_OK_AND_ASSIGN(const HostPort to, ParseHostPort(address[0]));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in peer = {};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(to.port);
  ASSERT_EQ(inet_pton(AF_INET, to.host.c_str(), &peer.sin_addr), 1);
  {
    const NoDescriptorLeft none;
    ASSERT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer), 0);
    const absl::Duration before = ProcessorTime();
    absl::SleepFor(absl::Seconds(1));
    EXPECT_LT(ProcessorTime() - before, absl::Milliseconds(200));
  }
  // Then it is heard, and turned away: it is nobody of this gang.
  const std::string noise(4096, 'x');
  ASSERT_EQ(send(fd, noise.data(), noise.size(), MSG_NOSIGNAL), 4096);
  pollfd closed{fd, POLLIN, 0};
  EXPECT_EQ(poll(&closed, 1, 10'000), 1);
  close(fd);
}

TEST(Watchdog, WithoutDescriptorsItDoesNotStart) {
  CommOptions comm;
  comm.world_size = 2;
  comm.nonce = "test";
  std::string address;
  LL_ASSERT_OK_AND_ASSIGN(const auto store, RendezvousStore::Listen(comm, &address));
  int refused = 0;
  for (int spare = 0; spare < 4; ++spare) {
    absl::StatusOr<std::shared_ptr<Watchdog>> watch = absl::UnknownError("");
    {
      const NoDescriptorLeft few(spare);
      watch = Watchdog::Start(*store, comm, WatchdogOptions());
    }
    refused += !watch.ok();
  }
  EXPECT_GE(refused, 2);  // a socket, and the two ends of a pipe
}

TEST(Watchdog, WhoStopsHasSaidWhy) {
  Gang gang;
  ASSERT_NO_FATAL_FAILURE(gang.Start());
  const std::shared_ptr<Watchdog> held = gang.watches[2];  // as a Comm holds it
  gang.watches[2]->Fail(absl::InternalError("torch: CUDA error: uncorrectable ECC error"));
  gang.watches[2]->Stop();
  EXPECT_THAT(gang.LostAt(0), StatusIs(absl::StatusCode::kUnavailable, "uncorrectable ECC error"));
  EXPECT_THAT(gang.LostAt(1), StatusIs(absl::StatusCode::kUnavailable, "rank 2"));
}

}  // namespace
}  // namespace ll
