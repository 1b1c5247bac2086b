// What ranks of one job exchange: sums of gradients and a few small values. Three transports behind
// one interface: comm_single.cc (one rank), comm_gloo.cc (CPU, sockets), comm_nccl.cc (GPUs, in
// libll_cuda.so, opened at run time).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ll {

// Every rank calls the same operations in the same order. Results are bit-identical on all ranks,
// and from run to run for the same number of ranks. Not thread-safe. A peer that died or stayed
// silent past the timeout is Unavailable.
class Comm {
 public:
  virtual ~Comm() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // Replaces each tensor (contiguous, fp32 or fp64) by its sum over the ranks.
  virtual absl::Status AllReduceSum(const std::vector<at::Tensor>& tensors) = 0;
  // Overwrites `tensor` with rank 0's.
  virtual absl::Status Broadcast(at::Tensor tensor) = 0;
};

std::unique_ptr<Comm> MakeSingleComm();

struct CommOptions {
  int rank = 0;
  int world_size = 1;
  std::string host = "127.0.0.1";  // this rank's own address, on which its peers reach it
  std::string nonce;  // prefix of every key in the store: ranks of another attempt never meet these
  absl::Duration rendezvous_timeout = absl::Seconds(120);
  // How long an operation waits for the slowest rank; covers a whole step of a rank with one row
  // more.
  absl::Duration collective_timeout = absl::Minutes(30);
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
};

// Connects to all other ranks; returns when each has answered, DeadlineExceeded otherwise.
absl::StatusOr<std::unique_ptr<Comm>> MakeGlooComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options);
// The same over NCCL on GPU `device_index`. FailedPrecondition where libll_cuda.so is not built or
// not found.
absl::StatusOr<std::unique_ptr<Comm>> MakeNcclComm(std::unique_ptr<RendezvousStore> store,
                                                   const CommOptions& options, int device_index);

}  // namespace ll
