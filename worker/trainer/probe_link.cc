#include "worker/trainer/probe_link.h"

#include <algorithm>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "base/status_macros.h"
#include "model/torch_edge.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/median.h"

namespace ll {
namespace {

constexpr size_t kLeastExchanges = 5;
constexpr absl::Duration kTimeout = absl::Seconds(20);

CommOptions OptionsOf(int rank) {
  CommOptions options;
  options.rank = rank;
  options.world_size = 2;
  options.nonce = "probe";
  options.rendezvous_timeout = options.collective_timeout = kTimeout;
  return options;
}

// What one of the two ranks sends and receives. The first byte of rank 0's is 1 in the last
// exchange.
struct Ends {
  explicit Ends(int64_t bytes)
      : mine(at::zeros({bytes}, at::kByte)), theirs(at::zeros({bytes}, at::kByte)) {}

  absl::Status Exchange(Comm& comm) const {
    const int other = 1 - comm.rank();
    LL_RETURN_IF_ERROR(comm.StartExchange({{other, mine}}, {{other, theirs}}));
    return comm.FinishExchange();
  }

  at::Tensor mine, theirs;
};

absl::Status Answer(const std::string& address, int64_t bytes) {
  LL_ASSIGN_OR_RETURN(auto store, RendezvousStore::Connect(OptionsOf(1), address));
  LL_ASSIGN_OR_RETURN(const auto comm, MakeGlooComm(std::move(store), OptionsOf(1)));
  const Ends ends(bytes);
  do {
    LL_RETURN_IF_ERROR(ends.Exchange(*comm));
  } while (*ends.theirs.data_ptr<uint8_t>() == 0);
  return absl::OkStatus();
}

// The median of an exchange's seconds.
absl::StatusOr<double> Ask(std::unique_ptr<RendezvousStore> store, int64_t bytes,
                           absl::Duration budget, Clock& clock) {
  LL_ASSIGN_OR_RETURN(const auto comm, MakeGlooComm(std::move(store), OptionsOf(0)));
  const Ends ends(bytes);
  LL_RETURN_IF_ERROR(ends.Exchange(*comm));  // fresh pages and connections
  std::vector<double> seconds;
  const absl::Duration begin = clock.Steady();
  for (bool last = false; !last;) {
    const absl::Duration start = clock.Steady();
    last = seconds.size() + 1 >= kLeastExchanges && start - begin >= budget;
    *ends.mine.data_ptr<uint8_t>() = last ? 1 : 0;
    LL_RETURN_IF_ERROR(ends.Exchange(*comm));
    seconds.push_back(std::max(1e-9, absl::ToDoubleSeconds(clock.Steady() - start)));
  }
  return MedianOf(std::move(seconds));
}

}  // namespace

absl::StatusOr<double> LinkBandwidth(int64_t bytes, absl::Duration budget, Clock& clock) {
  std::string address;
  LL_ASSIGN_OR_RETURN(auto store, RendezvousStore::Listen(OptionsOf(0), &address));
  absl::Status answered;
  std::thread other([&] { answered = TorchTry([&] { return Answer(address, bytes); }); });
  double seconds = 0;
  const absl::Status asked = TorchTry([&]() -> absl::Status {
    LL_ASSIGN_OR_RETURN(seconds, Ask(std::move(store), bytes, budget, clock));
    return absl::OkStatus();
  });
  other.join();
  LL_RETURN_IF_ERROR(asked);
  LL_RETURN_IF_ERROR(answered);
  // On one thread they take turns, where each of two ranks has one of its own.
  const double turns = at::get_num_threads() == 1 ? 2 : 1;
  return turns * static_cast<double>(bytes) / seconds;
}

}  // namespace ll
