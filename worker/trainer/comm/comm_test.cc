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
