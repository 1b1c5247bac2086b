// What ranks of one job exchange: sums of gradients, a few small values, and keys and values of
// rows that they share. Three transports behind one interface: comm_single.cc (one rank),
// comm_gloo.cc (CPU, sockets), comm_nccl.cc (GPUs, in libll_cuda.so, opened at run time).
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/row_peers.h"
#include "worker/trainer/comm/peer_watch.h"

namespace ll {

// What went through a group since it was made. Bytes are those of the tensors handed over, not of
// packets: an all-reduce of b bytes counts b in both directions.
struct CommCounters {
  int64_t operations = 0;  // the newest one's sequence number, equal on all ranks of the group
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  // Spent in operations, waiting for peers and for their bytes: by the host and, in exchanges, by
  // the device, as far as it has come.
  double wait_seconds = 0;
};

// Every rank calls the same operations in the same order. Results are bit-identical on all ranks,
// and from run to run for the same number of ranks. Not thread-safe. A peer that died or stayed
// silent past the timeout is Unavailable; with a watch the error names the peer, what it did last
// and its phase.
class Comm : public RowPeers {
 public:
  // Replaces each tensor (contiguous, fp32 or fp64) by its sum over the ranks.
  virtual absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) = 0;
  // Overwrites `tensor` with rank 0's.
  virtual absl::Status Broadcast(at::Tensor tensor) = 0;
  // The group of `ranks` (of this group, in their order, this rank among them) under a name of its
  // own. Collective over those ranks. Must not outlive this Comm.
  virtual absl::StatusOr<std::unique_ptr<Comm>> Split(const std::string& name,
                                                      const std::vector<int>& ranks) = 0;
  // At the end of what went well, by all ranks: returns when what this rank sent has arrived. No
  // operation may follow. Destroying a Comm without it drops what is under way.
  virtual absl::Status Close() { return absl::OkStatus(); }
  virtual CommCounters counters() const = 0;
  // StartExchange under a name of its own, for the error that names a rank: what
  // comm/sharded_sums.h is made of.
  virtual absl::Status StartExchangeAs(const char* operation, std::vector<PeerMessage> sends,
                                       std::vector<PeerMessage> receives) = 0;
  absl::Status StartExchange(std::vector<PeerMessage> sends,
                             std::vector<PeerMessage> receives) final {
    return StartExchangeAs("exchange", std::move(sends), std::move(receives));
  }
};

// `watch`, if given, hears of phases.
std::unique_ptr<Comm> MakeSingleComm(std::shared_ptr<PeerWatch> watch = nullptr);

// How the ranks of a job divide its work: context_parallel ranks share a row, data-parallel groups
// of them take different rows. Context ranks are neighbours (rank = data * context_size + context),
// because it is they who talk most and neighbours share a host.
struct RankLayout {
  int data_size = 1, context_size = 1;
  int data = 0, context = 0;  // of this rank
};
// world_size % context_size == 0.
RankLayout LayoutOf(int rank, int world_size, int context_size);
// The ranks that share this rank's rows.
std::vector<int> ContextRanks(const RankLayout& layout);

struct CommOptions {
  int rank = 0;
  int world_size = 1;
  std::string host = "127.0.0.1";  // this rank's own address, on which its peers reach it
  std::string nonce;  // prefix of every key in the store: ranks of another attempt never meet these
  absl::Duration rendezvous_timeout = absl::Seconds(120);
  // How long an operation waits for the slowest rank; covers a whole step of a rank with one row
  // more. A rank that is gone or stopped is noticed by the watch, long before.
  absl::Duration collective_timeout = absl::Minutes(30);
  std::shared_ptr<PeerWatch> watch;  // null: nobody watches
};

// The key-value store through which ranks find each other. Held by every rank for as long as it
// communicates.
class RendezvousStore {
 public:
  // Rank 0: listens on a free port of `options.host`; `address` becomes "host:port".
  static absl::StatusOr<std::unique_ptr<RendezvousStore>> Listen(const CommOptions& options,
                                                                 std::string* address);
  // Other ranks. Unavailable or DeadlineExceeded when rank 0 cannot be reached.
  static absl::StatusOr<std::unique_ptr<RendezvousStore>> Connect(const CommOptions& options,
                                                                  const std::string& address);
  virtual ~RendezvousStore() = default;
  virtual absl::Status Set(const std::string& key, const std::string& value) = 0;
  // Waits for the key, up to rendezvous_timeout.
  virtual absl::StatusOr<std::string> Get(const std::string& key) = 0;
};

// Connects to all other ranks; returns when each has answered, DeadlineExceeded otherwise.
absl::StatusOr<std::unique_ptr<Comm>> MakeGlooComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options);
// The same over NCCL on GPU `device_index`. FailedPrecondition where libll_cuda.so is not built or
// not found.
absl::StatusOr<std::unique_ptr<Comm>> MakeNcclComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options, int device_index);

}  // namespace ll
