#include "worker/trainer/comm/comm.h"

#include <thread>

#include "base/status_matchers.h"

namespace ll {
namespace {

CommOptions Options(int rank, int world_size) {
  CommOptions options;
  options.rank = rank;
  options.world_size = world_size;
  options.nonce = "test";
  options.rendezvous_timeout = absl::Seconds(20);
  return options;
}

// Runs `body` as every rank of a gang, each on a thread of its own.
template <typename Body>
void RunGang(int world_size, Body body) {
  std::string address;
  LL_ASSERT_OK_AND_ASSIGN(auto store0, RendezvousStore::Listen(Options(0, world_size), &address));
  EXPECT_EQ(address.substr(0, 10), "127.0.0.1:");
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    ranks.emplace_back([&, rank] {
      std::unique_ptr<RendezvousStore> store = rank == 0 ? std::move(store0) : nullptr;
      if (rank > 0) {
        LL_ASSERT_OK_AND_ASSIGN(store,
                                RendezvousStore::Connect(Options(rank, world_size), address));
      }
      LL_ASSERT_OK_AND_ASSIGN(const auto comm,
                              MakeGlooComm(std::move(store), Options(rank, world_size)));
      body(*comm);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

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

TEST(GlooComm, MissingPeerIsAnErrorWithinTheDeadline) {
  CommOptions options = Options(0, 2);
  options.rendezvous_timeout = absl::Seconds(1);
  std::string address;
  LL_ASSERT_OK_AND_ASSIGN(auto store, RendezvousStore::Listen(options, &address));
  EXPECT_THAT(MakeGlooComm(std::move(store), options),
              StatusIs(absl::StatusCode::kUnavailable, "rendezvous"));
}

TEST(Rendezvous, MalformedAddress) {
  EXPECT_THAT(RendezvousStore::Connect(Options(1, 2), "nowhere"),
              StatusIs(absl::StatusCode::kInvalidArgument, "host:port"));
}

}  // namespace
}  // namespace ll
