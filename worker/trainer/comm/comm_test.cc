#include "worker/trainer/comm/comm.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_matchers.h"
#include "worker/trainer/comm/c10d_store.h"
#include "worker/trainer/comm/sharded_sums.h"
#include "worker/trainer/comm/testing_gang.h"

namespace ll {
namespace {

TEST(GlooComm, SumsAreEqualBitForBitOnEveryRank) {
  constexpr int kRanks = 3;
  std::vector<at::Tensor> sums(kRanks);
  RunGang(kRanks, [&](Comm& comm) {
    at::Tensor values = at::arange(10001, at::kFloat).mul(0.37f + comm.rank()).sin();
    LL_ASSERT_OK(comm.AllReduceSum({values}));
    sums[comm.rank()] = values;
  });
  at::Tensor expected = at::zeros(10001, at::kDouble);
  for (int rank = 0; rank < kRanks; ++rank) {
    expected += at::arange(10001, at::kFloat).mul(0.37f + rank).sin().to(at::kDouble);
    EXPECT_TRUE(at::equal(sums[rank], sums[0]));
  }
  EXPECT_LT((expected - sums[0]).abs().max().item<double>(), 1e-6);
}

TEST(GlooComm, BroadcastTakesRankZerosValues) {
  RunGang(2, [&](Comm& comm) {
    at::Tensor values = at::full({4}, comm.rank() + 5.0, at::kDouble);
    LL_ASSERT_OK(comm.Broadcast(values));
    EXPECT_EQ(values.sum().item<double>(), 20.0);
  });
}

// Parts of sizes of their own, an empty one among them; the order of the sum is that of the ranks.
TEST(GlooComm, ReduceScatterAndAllGather) {
  constexpr int kRanks = 3;
  const RankParts parts = {{0, 700}, {1000, 1000}, {700, 1000}};
  const auto values = [](int rank) { return at::arange(1000, at::kFloat).mul(0.7f + rank).sin(); };
  const at::Tensor expected = values(0).add(values(1)).add(values(2));
  RunGang(kRanks, [&](Comm& comm) {
    const auto& [begin, end] = parts[static_cast<size_t>(comm.rank())];
    const at::Tensor mine = values(comm.rank());
    ReduceScatter reduce;
    LL_ASSERT_OK(reduce.Start(comm, mine, parts));
    LL_ASSERT_OK_AND_ASSIGN(const at::Tensor sum, reduce.Finish());
    if (end > begin) {
      EXPECT_TRUE(at::equal(sum, expected.narrow(0, begin, end - begin)));
    }
    EXPECT_TRUE(at::equal(mine, values(comm.rank())));
    EXPECT_EQ(comm.counters().bytes_sent, 4 * (1000 - (end - begin)));
    at::Tensor all = at::zeros({1000});
    if (end > begin) all.narrow(0, begin, end - begin).copy_(sum);
    AllGather gather;
    LL_ASSERT_OK(gather.Start(comm, all, parts));
    LL_ASSERT_OK(gather.Finish());
    EXPECT_TRUE(at::equal(all, expected));
    EXPECT_EQ(comm.counters().operations, 2);
  });
}

// Each rank sends to each later one a tensor of a size of their own, several at once, in bf16.
TEST(GlooComm, ExchangesMessagesBetweenRanks) {
  constexpr int kRanks = 4;
  RunGang(kRanks, [&](Comm& comm) {
    for (int round = 0; round < 3; ++round) {
      const auto value = [&](int from, int to, int part) {
        return at::full({1000 + 10 * from + to + part}, from * 100 + to * 10 + part + round,
                        at::kBFloat16);
      };
      std::vector<PeerMessage> sends, receives;
      int64_t sent = 0;
      for (int part = 0; part < 2; ++part) {
        for (int to = comm.rank() + 1; to < kRanks; ++to) {
          sends.push_back({to, value(comm.rank(), to, part)});
          sent += 2 * sends.back().tensor.numel();
        }
        for (int from = 0; from < comm.rank(); ++from)
          receives.push_back({from, at::empty_like(value(from, comm.rank(), part))});
      }
      const CommCounters before = comm.counters();
      const std::vector<PeerMessage> received = receives;
      LL_ASSERT_OK(comm.StartExchange(std::move(sends), std::move(receives)));
      LL_ASSERT_OK(comm.FinishExchange());
      EXPECT_EQ(comm.counters().bytes_sent - before.bytes_sent, sent);
      EXPECT_EQ(comm.counters().operations, before.operations + 1);
      for (size_t i = 0; i < received.size(); ++i) {
        const int part = static_cast<int>(i) / comm.rank();
        EXPECT_TRUE(at::equal(received[i].tensor, value(received[i].peer, comm.rank(), part)));
      }
    }
  });
}

TEST(GlooComm, GroupsOfRanksThatShareARow) {
  RunGang(4, [&](Comm& world) {
    const RankLayout layout = LayoutOf(world.rank(), 4, 2);
    EXPECT_EQ(layout.data * 2 + layout.context, world.rank());
    LL_ASSERT_OK_AND_ASSIGN(
        const auto context,
        world.Split("context " + std::to_string(layout.data), ContextRanks(layout)));
    EXPECT_EQ(context->rank(), layout.context);
    EXPECT_EQ(context->world_size(), 2);
    at::Tensor sum = at::full({1}, 1.0 + world.rank(), at::kDouble);
    LL_ASSERT_OK(context->AllReduceSum({sum}));
    EXPECT_EQ(sum.item<double>(), layout.data == 0 ? 1 + 2 : 3 + 4);
    std::vector<PeerMessage> sends, receives;
    at::Tensor got = at::zeros({1}, at::kDouble);
    if (layout.context == 0) sends.push_back({1, sum});
    if (layout.context == 1) receives.push_back({0, got});
    LL_ASSERT_OK(context->StartExchange(std::move(sends), std::move(receives)));
    LL_ASSERT_OK(context->FinishExchange());
    EXPECT_EQ(got.item<double>(), layout.context == 1 ? sum.item<double>() : 0.0);
    EXPECT_EQ(context->counters().operations, 2);
    EXPECT_EQ(world.counters().operations, 0);
  });
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

// Operations in their order: "all-reduce 3 of world".
class RecordingWatch : public PeerWatch {
 public:
  void Enter(const char*) override {}
  void Begin(const char* operation, const char* group, int64_t sequence) override {
    list.push_back(absl::StrCat(operation, " ", sequence, " of ", group));
  }
  void End() override {}
  absl::Status Explain(absl::Status error) override { return error; }
  std::vector<std::string> list;
};

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
