// A gang over Gloo inside one process, for tests.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status_matchers.h"
#include "gtest/gtest.h"
#include "worker/trainer/comm/comm.h"

namespace ll {

inline CommOptions GangOptions(int rank, int world_size) {
  CommOptions options;
  options.rank = rank;
  options.world_size = world_size;
  options.nonce = "test";
  options.rendezvous_timeout = absl::Seconds(20);
  return options;
}

// Runs `body` as every rank of a gang, each on a thread of its own; `watch_of` gives a rank's
// watch.
template <typename Body, typename WatchOf = std::shared_ptr<PeerWatch> (*)(int)>
void RunGang(
    int world_size, Body body,
    WatchOf watch_of = [](int) { return std::shared_ptr<PeerWatch>(); }) {
  std::string address;
  LL_ASSERT_OK_AND_ASSIGN(auto store0,
                          RendezvousStore::Listen(GangOptions(0, world_size), &address));
  EXPECT_EQ(address.substr(0, 10), "127.0.0.1:");
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < world_size; ++rank) {
    ranks.emplace_back([&, rank] {
      std::unique_ptr<RendezvousStore> store = rank == 0 ? std::move(store0) : nullptr;
      if (rank > 0) {
        LL_ASSERT_OK_AND_ASSIGN(store,
                                RendezvousStore::Connect(GangOptions(rank, world_size), address));
      }
      CommOptions options = GangOptions(rank, world_size);
      options.watch = watch_of(rank);
      LL_ASSERT_OK_AND_ASSIGN(const auto comm, MakeGlooComm(std::move(store), options));
      body(*comm);
    });
  }
  for (std::thread& rank : ranks) rank.join();
}

}  // namespace ll
