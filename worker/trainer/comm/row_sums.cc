#include "worker/trainer/comm/row_sums.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/status_macros.h"
#include "model/torch_edge.h"

namespace ll {
namespace {

// bool [rows]: the candidates that are not zero, a negative zero counting as something, so that
// what is left out is what adds nothing to any sum's bits.
at::Tensor TouchedRows(const at::Tensor& values, const at::Tensor& candidates) {
  constexpr int64_t kRowsAtOnce = 4096;
  const at::Tensor bits = values.view(at::kInt),
                   rows = candidates.to(values.device()).nonzero().view({-1});
  at::Tensor touched = at::zeros({values.size(0)}, values.options().dtype(at::kByte));
  for (int64_t i = 0; i < rows.numel(); i += kRowsAtOnce) {
    const at::Tensor some = rows.narrow(0, i, std::min(kRowsAtOnce, rows.numel() - i));
    touched.index_copy_(0, some, bits.index_select(0, some).ne(0).any(1).to(at::kByte));
  }
  return touched;
}

// One matrix on its way.
class RowSum {
 public:
  RowSum(Comm& comm, at::Tensor values, const RankParts& parts)
      : comm_(comm), values_(std::move(values)), parts_(parts), width_(values_.size(1)) {}

  absl::Status Announce(const at::Tensor& candidates);
  absl::StatusOr<at::Tensor> Reduce();
  absl::Status Share();

 private:
  using Range = std::pair<int64_t, int64_t>;
  const Range& PartOf(int rank) const { return parts_[static_cast<size_t>(rank)]; }
  // The rows that a rank's part touches; one that a cut divides belongs to both sides here.
  Range RowsOf(int rank) const {
    const auto& [begin, end] = PartOf(rank);
    return begin == end ? Range{0, 0} : Range{begin / width_, (end + width_ - 1) / width_};
  }
  // Those that begin in it, so that every row is one rank's.
  Range RowsBegunBy(int rank) const {
    const auto& [begin, end] = PartOf(rank);
    return {(begin + width_ - 1) / width_, (end + width_ - 1) / width_};
  }
  // Indices of the rows in a range that `marks` [rows] holds.
  static at::Tensor Marked(const at::Tensor& marks, const Range& range) {
    return marks.narrow(0, range.first, range.second - range.first).nonzero().view({-1}) +
           range.first;
  }
  at::Tensor RowsFrom(int sender, int receiver) const {
    return Marked(touched_.select(0, sender), RowsOf(receiver));
  }
  at::Tensor Buffer(const at::Tensor& rows) const {
    return at::empty({rows.numel(), width_}, values_.options());
  }

  Comm& comm_;
  at::Tensor values_;
  const RankParts& parts_;
  const int64_t width_;
  at::Tensor touched_;  // u8 [ranks, rows]
  at::Tensor sum_;      // fp32 [RowsOf(this rank), width]
};

absl::Status RowSum::Announce(const at::Tensor& candidates) {
  const int64_t rows = values_.size(0);
  touched_ = at::zeros({comm_.world_size(), rows}, values_.options().dtype(at::kByte));
  touched_.select(0, comm_.rank()).copy_(TouchedRows(values_, candidates));
  RankParts lists;
  for (int64_t r = 0; r < comm_.world_size(); ++r) lists.emplace_back(r * rows, (r + 1) * rows);
  AllGather gather;
  LL_RETURN_IF_ERROR(gather.Start(comm_, touched_.view({-1}), lists));
  return gather.Finish();
}

absl::StatusOr<at::Tensor> RowSum::Reduce() {
  const int me = comm_.rank();
  std::vector<PeerMessage> sends, receives;
  std::vector<at::Tensor> received(parts_.size());
  for (int peer = 0; peer < comm_.world_size(); ++peer) {
    if (peer == me) continue;
    if (const at::Tensor rows = RowsFrom(me, peer); rows.numel() > 0)
      sends.push_back({peer, values_.index_select(0, rows)});
    if (const at::Tensor rows = RowsFrom(peer, me); rows.numel() > 0)
      receives.push_back({peer, received[static_cast<size_t>(peer)] = Buffer(rows)});
  }
  LL_RETURN_IF_ERROR(
      comm_.StartExchangeAs("reduce-scatter of rows", std::move(sends), std::move(receives)));
  LL_RETURN_IF_ERROR(comm_.FinishExchange());

  const auto [first, last] = RowsOf(me);
  sum_ = at::zeros({last - first, width_}, values_.options());
  for (int rank = 0; rank < comm_.world_size(); ++rank) {
    const at::Tensor rows = RowsFrom(rank, me);
    if (rows.numel() == 0) continue;
    const at::Tensor part =
        rank == me ? values_.index_select(0, rows) : received[static_cast<size_t>(rank)];
    const at::Tensor here = rows - first;
    // Rank 0's values start the sum as they are; zero plus a negative zero would be another zero.
    sum_.index_copy_(0, here, rank == 0 ? part : sum_.index_select(0, here).add_(part));
  }
  // Where a rank has nothing, the dense sum adds its zeros: a negative zero becomes positive.
  const at::Tensor ranks = touched_.sum(0, /*keepdim=*/false, at::kLong);
  const at::Tensor some =
      Marked(ranks.gt(0).logical_and_(ranks.lt(comm_.world_size())), {first, last}) - first;
  if (some.numel() > 0) sum_.index_copy_(0, some, sum_.index_select(0, some).add_(0.0));
  const auto& [begin, end] = PartOf(me);
  if (begin == end) return at::empty({0}, values_.options());
  return sum_.view({-1}).narrow(0, begin - first * width_, end - begin);
}

absl::Status RowSum::Share() {
  const int me = comm_.rank();
  const at::Tensor any = touched_.sum(0, /*keepdim=*/false, at::kLong).gt(0);
  const auto rows_of = [&](int rank) { return Marked(any, RowsBegunBy(rank)); };
  std::vector<PeerMessage> sends, receives;
  std::vector<at::Tensor> received(parts_.size());
  const at::Tensor mine = rows_of(me);
  const at::Tensor sums = sum_.index_select(0, mine - RowsOf(me).first);
  for (int peer = 0; peer < comm_.world_size(); ++peer) {
    if (peer == me) continue;
    if (mine.numel() > 0) sends.push_back({peer, sums});
    if (const at::Tensor rows = rows_of(peer); rows.numel() > 0)
      receives.push_back({peer, received[static_cast<size_t>(peer)] = Buffer(rows)});
  }
  LL_RETURN_IF_ERROR(
      comm_.StartExchangeAs("all-gather of rows", std::move(sends), std::move(receives)));
  LL_RETURN_IF_ERROR(comm_.FinishExchange());
  for (int rank = 0; rank < comm_.world_size(); ++rank) {
    const at::Tensor& part = rank == me ? sums : received[static_cast<size_t>(rank)];
    if (part.defined()) values_.index_copy_(0, rows_of(rank), part);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<at::Tensor> SumTouchedRows(Comm& comm, at::Tensor values,
                                          const at::Tensor& candidates, const RankParts& parts,
                                          bool everywhere) {
  at::Tensor sum;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    RowSum rows(comm, std::move(values), parts);
    LL_RETURN_IF_ERROR(rows.Announce(candidates));
    LL_ASSIGN_OR_RETURN(sum, rows.Reduce());
    return everywhere ? rows.Share() : absl::OkStatus();
  }));
  return sum;
}

}  // namespace ll
