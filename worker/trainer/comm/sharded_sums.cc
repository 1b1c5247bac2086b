#include "worker/trainer/comm/sharded_sums.h"

#include "base/check.h"
#include "base/status_macros.h"
#include "model/torch_edge.h"

namespace ll {
namespace {

at::Tensor PartOf(const at::Tensor& values, const RankParts& parts, int rank) {
  const auto& [begin, end] = parts[static_cast<size_t>(rank)];
  return values.narrow(0, begin, end - begin);
}

}  // namespace

absl::Status ReduceScatter::Start(Comm& comm, at::Tensor values, const RankParts& parts) {
  LL_CHECK(values.dim() == 1 && values.is_contiguous() && values.scalar_type() == at::kFloat);
  LL_CHECK(static_cast<int>(parts.size()) == comm.world_size());
  comm_ = &comm;
  mine_ = PartOf(values, parts, comm.rank());
  received_.assign(parts.size(), at::Tensor());
  std::vector<PeerMessage> sends, receives;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    for (int peer = 0; peer < comm.world_size(); ++peer) {
      if (peer == comm.rank()) continue;
      const at::Tensor part = PartOf(values, parts, peer);
      if (part.numel() > 0) sends.push_back({peer, part});
      if (mine_.numel() == 0) continue;
      received_[static_cast<size_t>(peer)] = at::empty_like(mine_);
      receives.push_back({peer, received_[static_cast<size_t>(peer)]});
    }
    return absl::OkStatus();
  }));
  return comm.StartExchangeAs("reduce-scatter", std::move(sends), std::move(receives));
}

absl::StatusOr<at::Tensor> ReduceScatter::Finish() {
  LL_RETURN_IF_ERROR(comm_->FinishExchange());
  at::Tensor sum;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    for (int rank = 0; rank < comm_->world_size(); ++rank) {
      at::Tensor& part = rank == comm_->rank() ? mine_ : received_[static_cast<size_t>(rank)];
      if (!part.defined()) continue;  // this rank's part is empty
      if (sum.defined()) {
        sum.add_(part);
      } else {
        sum = rank == comm_->rank() ? part.clone() : part;
      }
      part = at::Tensor();
    }
    return absl::OkStatus();
  }));
  return sum;
}

absl::Status AllGather::Start(Comm& comm, at::Tensor values, const RankParts& parts) {
  LL_CHECK(values.dim() == 1 && values.is_contiguous());
  LL_CHECK(static_cast<int>(parts.size()) == comm.world_size());
  comm_ = &comm;
  const at::Tensor mine = PartOf(values, parts, comm.rank());
  std::vector<PeerMessage> sends, receives;
  for (int peer = 0; peer < comm.world_size(); ++peer) {
    if (peer == comm.rank()) continue;
    const at::Tensor part = PartOf(values, parts, peer);
    if (mine.numel() > 0) sends.push_back({peer, mine});
    if (part.numel() > 0) receives.push_back({peer, part});
  }
  return comm.StartExchangeAs("all-gather", std::move(sends), std::move(receives));
}

absl::Status AllGather::Finish() { return comm_->FinishExchange(); }

}  // namespace ll
