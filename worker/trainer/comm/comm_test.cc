#include "worker/trainer/comm/comm.h"

#include <algorithm>
#include <stdexcept>

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "worker/trainer/comm/c10d_store.h"
#include "worker/trainer/comm/conformance.h"
#include "worker/trainer/comm/sharded_sums.h"
#include "worker/trainer/comm/testing_gang.h"

namespace ll {
namespace {

TEST(GlooComm, Conforms) {
  for (const int ranks : {1, 2, 3, 4}) {
    RunGang(ranks, [&](Comm& comm) {
      for (const ConformanceCase& c : ConformanceCases())
        LL_EXPECT_OK(c.run(comm, at::kCPU)) << c.name << ", " << ranks << " ranks";
    });
  }
}

TEST(SingleComm, Conforms) {
  const auto comm = MakeSingleComm();
  for (const ConformanceCase& c : ConformanceCases())
    LL_EXPECT_OK(c.run(*comm, at::kCPU)) << c.name;
}

// Moves nothing: a rank's operations without any transport.
class NoTransport : public LoggedComm {
 public:
  using LoggedComm::LoggedComm;
  absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string& name,
                                              const std::vector<int>& ranks) override {
    CommOptions split = options();
    split.rank = static_cast<int>(std::find(ranks.begin(), ranks.end(), rank()) - ranks.begin());
    split.world_size = static_cast<int>(ranks.size());
    return std::make_unique<NoTransport>(split, name);
  }

 protected:
  void Sum(const at::Tensor&) override {}
  void TakeRankZeros(const at::Tensor&) override {}
  void StartMessages(int64_t, const std::vector<PeerMessage>&,
                     const std::vector<PeerMessage>&) override {}
  void FinishMessages() override {}
};

// Every case can fail: a transport that does nothing passes none of them.
TEST(Conformance, SeesATransportThatMovesNothing) {
  for (const int rank : {0, 1}) {
    for (const ConformanceCase& c : ConformanceCases()) {
      if (c.name == "broadcast" && rank == 0) continue;  // which gives and does not get
      NoTransport none(GangOptions(rank, 2), "world");
      EXPECT_THAT(c.run(none, at::kCPU), StatusIs(absl::StatusCode::kInternal, "")) << c.name;
    }
  }
}

// Operations in their order: "all-reduce 3 of world".
class RecordingWatch : public PeerWatch {
 public:
  void Enter(const char*) override {}
  void Begin(const char* operation, const char* group, int64_t sequence) override {
    list.push_back(absl::StrCat(operation, " ", sequence, " of ", group));
  }
  void End() override {}
  absl::Status Explain(absl::Status error) override { return failed_ = error; }
  absl::Status Failed() override { return failed_; }
  std::vector<std::string> list;

 protected:
  absl::Status failed_;
};

// A peer that is gone before the messages to it are on their way.
class CannotStart : public NoTransport {
 public:
  using NoTransport::NoTransport;

 protected:
  void StartMessages(int64_t, const std::vector<PeerMessage>&,
                     const std::vector<PeerMessage>&) override {
    throw std::runtime_error("Connection reset by peer");
  }
};

class RankTwoIsLost : public RecordingWatch {
 public:
  absl::Status Explain(absl::Status error) override {
    return failed_ = absl::UnavailableError(absl::StrCat("rank 2 is lost: ", error.message()));
  }
};

// Else this rank would be taken for the one to blame: its own error is passed on to the others.
TEST(LoggedComm, ExchangeThatCannotStartIsExplained) {
  CommOptions options = GangOptions(0, 2);
  const auto watch = std::make_shared<RankTwoIsLost>();
  options.watch = watch;
  CannotStart comm(options, "world");
  EXPECT_THAT(comm.StartExchange({}, {}),
              StatusIs(absl::StatusCode::kUnavailable,
                       "rank 2 is lost: exchange 1 of world: Connection reset by peer"));
  EXPECT_EQ(watch->list, std::vector<std::string>{"exchange 1 of world"});
}

// Else this rank would wait in its next operation for those that wait for it in this one.
TEST(LoggedComm, NothingStartsAfterAnOperationThatFailed) {
  CommOptions options = GangOptions(0, 2);
  const auto watch = std::make_shared<RankTwoIsLost>();
  options.watch = watch;
  CannotStart context(options, "context 0");
  NoTransport world(options, "world");
  const absl::Status failed = context.StartExchange({}, {});
  EXPECT_EQ(world.AllReduceSum({}), failed);
  EXPECT_EQ(world.Broadcast(at::zeros({1})), failed);
  EXPECT_EQ(world.StartExchange({}, {}), failed);
  EXPECT_EQ(watch->list, std::vector<std::string>{"exchange 1 of context 0"});
}

// What a transport has no say in is the same on all of them, NCCL's among them.
TEST(LoggedComm, EveryTransportHasTheSameListOfOperationsAndBytes) {
  constexpr int kRanks = 4;
  const auto step = [](Comm& world) {
    std::vector<int64_t> bytes;
    const auto note = [&bytes](const Comm& comm) {
      bytes.push_back(comm.counters().bytes_sent);
      bytes.push_back(comm.counters().bytes_received);
    };
    LL_EXPECT_OK(world.Broadcast(at::zeros({3}, at::kDouble)));
    note(world);
    const RankLayout layout = LayoutOf(world.rank(), kRanks, 2);
    const auto context = world.Split(absl::StrCat("context ", layout.data), ContextRanks(layout));
    EXPECT_TRUE(context.ok());
    std::vector<PeerMessage> sends, receives;
    if (layout.context == 0) sends.push_back({1, at::zeros({10}, at::kBFloat16)});
    if (layout.context == 1) receives.push_back({0, at::zeros({10}, at::kBFloat16)});
    LL_EXPECT_OK((*context)->StartExchange(sends, receives));
    LL_EXPECT_OK((*context)->FinishExchange());
    note(**context);
    const RankParts parts = {{0, 7}, {7, 7}, {7, 20}, {20, 32}};
    ReduceScatter reduce;
    LL_EXPECT_OK(reduce.Start(world, at::zeros({32}), parts));
    LL_EXPECT_OK(reduce.Finish().status());
    note(world);
    at::Tensor all = at::zeros({32});
    AllGather gather;
    LL_EXPECT_OK(gather.Start(world, all, parts));
    LL_EXPECT_OK(gather.Finish());
    LL_EXPECT_OK(world.AllReduceSum({at::zeros({2}, at::kDouble), at::zeros({5})}));
    note(world);
    return bytes;
  };
  std::vector<std::shared_ptr<RecordingWatch>> watches;
  for (int rank = 0; rank < kRanks; ++rank) watches.push_back(std::make_shared<RecordingWatch>());
  RunGang(
      kRanks,
      [&](Comm& world) {
        CommOptions options = GangOptions(world.rank(), kRanks);
        const auto recorded = std::make_shared<RecordingWatch>();
        options.watch = recorded;
        NoTransport none(options, "world");
        EXPECT_EQ(step(world), step(none)) << world.rank();
        EXPECT_EQ(watches[static_cast<size_t>(world.rank())]->list, recorded->list) << world.rank();
        EXPECT_EQ(recorded->list.size(), 5u);
      },
      [&](int rank) { return watches[static_cast<size_t>(rank)]; });
}

TEST(GlooComm, MissingPeerIsAnErrorWithinTheDeadline) {
  CommOptions options = GangOptions(0, 2);
  options.rendezvous_timeout = absl::Seconds(1);
  std::string address;
  LL_ASSERT_OK_AND_ASSIGN(auto store, RendezvousStore::Listen(options, &address));
  EXPECT_THAT(MakeGlooComm(std::move(store), options),
              StatusIs(absl::StatusCode::kUnavailable, "rendezvous"));
}

TEST(Rendezvous, MalformedAddress) {
  EXPECT_THAT(RendezvousStore::Connect(GangOptions(1, 2), "nowhere"),
              StatusIs(absl::StatusCode::kInvalidArgument, "host:port"));
}

}  // namespace
}  // namespace ll
