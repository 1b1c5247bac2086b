// RowPeers between threads of one process, for tests.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "model/row_peers.h"

namespace ll {

class ThreadPeers : public RowPeers {
 public:
  // Runs `body(peers)` as every rank, each on a thread of its own.
  template <typename Body>
  static void Run(int ranks, Body body) {
    Mailboxes boxes;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        ThreadPeers peers(rank, ranks, boxes);
        body(peers);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  int rank() const override { return rank_; }
  int world_size() const override { return ranks_; }
  void EnterPhase(const char* phase) override { phases.push_back(phase); }
  absl::Status StartExchange(std::vector<PeerMessage> sends,
                             std::vector<PeerMessage> receives) override {
    LL_CHECK(!busy_);
    busy_ = true;
    ++exchanges;
    receives_ = std::move(receives);
    absl::MutexLock lock(&boxes_.mu);
    for (const PeerMessage& m : sends) {
      bytes_sent += static_cast<int64_t>(m.tensor.nbytes());
      boxes_.sent[{rank_, m.peer}].push_back(m.tensor.clone());
    }
    return absl::OkStatus();
  }
  absl::Status FinishExchange() override {
    LL_CHECK(busy_);
    busy_ = false;
    for (const PeerMessage& m : receives_) {
      absl::MutexLock lock(&boxes_.mu);
      std::deque<at::Tensor>& box = boxes_.sent[{m.peer, rank_}];
      const auto arrived = [&box] { return !box.empty(); };
      if (!boxes_.mu.AwaitWithTimeout(absl::Condition(&arrived), absl::Seconds(60)))
        return absl::UnavailableError("nothing was sent");
      LL_CHECK(box.front().sizes() == m.tensor.sizes());
      at::Tensor to = m.tensor;
      to.copy_(box.front());
      box.pop_front();
    }
    return absl::OkStatus();
  }

  int64_t bytes_sent = 0, exchanges = 0;
  std::vector<std::string> phases;

 private:
  struct Mailboxes {
    absl::Mutex mu;
    std::map<std::pair<int, int>, std::deque<at::Tensor>> sent;  // by (from, to)
  };
  ThreadPeers(int rank, int ranks, Mailboxes& boxes) : rank_(rank), ranks_(ranks), boxes_(boxes) {}

  const int rank_, ranks_;
  Mailboxes& boxes_;
  bool busy_ = false;
  std::vector<PeerMessage> receives_;
};

}  // namespace ll
