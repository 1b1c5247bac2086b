// The ranks that share a row, as the model sees them: messages from rank to rank. The trainer's
// Comm implements it.
#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"

namespace ll {

struct PeerMessage {
  int peer = 0;       // rank in the group
  at::Tensor tensor;  // contiguous; of the same size on both sides
};

// Every rank of the group calls the same operations in the same order, also with nothing to say.
// Not thread-safe.
class RowPeers {
 public:
  virtual ~RowPeers() = default;
  virtual int rank() const = 0;
  virtual int world_size() const = 0;
  // What this rank does from here on ("forward", "backward", …), for the error that names a rank.
  virtual void EnterPhase(const char* phase) = 0;
  // Starts to send and to receive, and returns; FinishExchange waits. Tensors of `receives` are
  // overwritten. Messages between two ranks are matched in their order. One exchange at a time.
  virtual absl::Status StartExchange(std::vector<PeerMessage> sends,
                                     std::vector<PeerMessage> receives) = 0;
  virtual absl::Status FinishExchange() = 0;
};

}  // namespace ll
