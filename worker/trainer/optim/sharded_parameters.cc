#include "worker/trainer/optim/sharded_parameters.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/global_norm/global_norm.h"
#include "kernels/ops.h"
#include "model/torch_edge.h"
#include "worker/trainer/comm/row_sums.h"

namespace ll {
namespace {

static_assert(BucketSizes{}.block == kSumSquaresBlock);

at::Tensor Flat(const at::Tensor& t, const Piece& piece) {
  return t.view({-1}).narrow(0, piece.begin, piece.size());
}

at::Tensor Joined(const std::vector<at::Tensor>& flats) {
  return flats.size() == 1 ? flats[0] : at::cat(flats);
}

// Copies `joined` back into the tensors it was made of; nothing where it is that tensor.
void Separate(const at::Tensor& joined, const std::vector<at::Tensor>& flats) {
  if (flats.size() == 1) return;
  int64_t offset = 0;
  for (const at::Tensor& flat : flats) {
    flat.copy_(joined.narrow(0, offset, flat.numel()));
    offset += flat.numel();
  }
}

std::vector<at::Tensor> GradientsOf(const Bucket& bucket,
                                    const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> flats;
  for (const Piece& piece : bucket.pieces)
    flats.push_back(Flat(parameters[piece.parameter].grad, piece));
  return flats;
}

}  // namespace

ShardedParameters::ShardedParameters(std::vector<Parameter>& parameters, int zero_stage,
                                     bool sparse_embedding, Comm& world)
    : parameters_(parameters),
      world_(world),
      stage_(world.world_size() > 1 ? zero_stage : 0),
      final_(parameters.size()) {
  if (world.world_size() > 1) {
    std::vector<ParameterShape> shapes;
    std::vector<at::Tensor> gradients;
    for (const Parameter& parameter : parameters) {
      const bool by_rows = sparse_embedding && parameter.is_embedding;
      shapes.push_back({parameter.compute.numel(), by_rows});
      gradients.push_back(parameter.grad);
      if (by_rows) touched_ = at::zeros({parameter.compute.size(0)}, at::kBool);
    }
    buckets_ = MakeBuckets(shapes, world.world_size());
    if (stage_ == 2) gradients_ = Storages(gradients);
  }
  MakeSlices();
}

void ShardedParameters::MakeSlices() {
  const auto add = [this](const Piece& piece) {
    const Parameter& p = parameters_[piece.parameter];
    slices_.push_back({piece.parameter, piece.begin, piece.end, Flat(p.master, piece),
                       Flat(p.grad, piece), Flat(p.compute, piece), p.compute.dim() > 1});
  };
  if (stage_ == 0) {
    for (size_t i = 0; i < parameters_.size(); ++i) add({i, 0, parameters_[i].compute.numel()});
    return;
  }
  for (const Bucket& bucket : buckets_) {
    first_slice_.push_back(slices_.size());
    for (const Piece& piece : PiecesOf(bucket, world_.rank())) add(piece);
  }
}

void ShardedParameters::ReleaseMasters() {
  if (stage_ == 0) return;
  std::vector<at::Tensor> masters;
  for (Parameter& parameter : parameters_) {
    if (parameter.master.is_alias_of(parameter.compute)) continue;
    masters.push_back(parameter.master);
    parameter.master = at::Tensor();
  }
  for (Slice& slice : slices_) {
    if (!slice.master.is_alias_of(slice.compute)) slice.master = slice.master.clone();
  }
  Storages storages(masters);
  for (size_t i = 0; i < storages.size(); ++i) storages.Free(i);
}

void ShardedParameters::StartStep() {
  std::fill(final_.begin(), final_.end(), 0);
  next_ = 0;
  last_row_ = false;
  in_flight_.reset();
  broken_ = absl::OkStatus();
  if (touched_.defined()) touched_.zero_();
  if (stage_ < 2) {
    const OpScope scope("fill with zeros", [&] {
      OpWork work;
      for (const Parameter& parameter : parameters_) work.bytes += Moves({parameter.grad}).bytes;
      return work;
    });
    for (Parameter& parameter : parameters_) parameter.grad.zero_();
    return;
  }
  for (Slice& slice : slices_) slice.grad = at::Tensor();
  for (size_t i = 0; i < gradients_.size(); ++i) gradients_.Free(i);
  unread_.assign(gradients_.size(), 0);
  for (const Bucket& bucket : buckets_) {
    for (const Piece& piece : bucket.pieces) ++unread_[gradients_.IndexOf(piece.parameter)];
  }
}

void ShardedParameters::Touch(const at::Tensor& tokens) {
  if (touched_.defined()) touched_.index_fill_(0, tokens.to(at::kLong), true);
}

void ShardedParameters::Begin(size_t first, size_t last) {
  if (stage_ < 2) return;
  for (size_t i = first; i < last; ++i) gradients_.Allocate(gradients_.IndexOf(i));
}

absl::Status ShardedParameters::End(size_t first, size_t last) {
  if (!last_row_) return absl::OkStatus();
  std::fill(final_.begin() + static_cast<std::ptrdiff_t>(first),
            final_.begin() + static_cast<std::ptrdiff_t>(last), 1);
  return Advance();
}

absl::Status ShardedParameters::FinishReduction() {
  LL_RETURN_IF_ERROR(broken_);
  std::fill(final_.begin(), final_.end(), 1);
  LL_RETURN_IF_ERROR(Advance());
  return Land();
}

absl::Status ShardedParameters::Advance() {
  const auto complete = [this](const Bucket& bucket) {
    return std::all_of(bucket.pieces.begin(), bucket.pieces.end(),
                       [this](const Piece& piece) { return final_[piece.parameter] != 0; });
  };
  while (next_ < buckets_.size() && complete(buckets_[next_])) {
    broken_ = Land();
    LL_RETURN_IF_ERROR(broken_);
    LL_RETURN_IF_ERROR(Launch(next_));
    ++next_;
  }
  return absl::OkStatus();
}

absl::Status ShardedParameters::Launch(size_t index) {
  const Bucket& bucket = buckets_[index];
  // A rank without a row has not been asked for this memory yet.
  for (const Piece& piece : bucket.pieces) Begin(piece.parameter, piece.parameter + 1);
  if (bucket.by_rows) {
    const Parameter& parameter = parameters_[bucket.pieces[0].parameter];
    const absl::StatusOr<at::Tensor> sum =
        SumTouchedRows(world_, parameter.grad, touched_, bucket.parts, stage_ == 0);
    broken_ = sum.status();
    LL_RETURN_IF_ERROR(broken_);
    Keep(index, *sum);
    Drop(bucket);
    return absl::OkStatus();
  }
  LL_RETURN_IF_ERROR(TorchTry([&] {
    flat_ = Joined(GradientsOf(bucket, parameters_));
    return absl::OkStatus();
  }));
  LL_RETURN_IF_ERROR(reduce_.Start(world_, flat_, bucket.parts));
  in_flight_ = index;
  if (bucket.pieces.size() > 1) Drop(bucket);  // flat_ is a copy
  return absl::OkStatus();
}

absl::Status ShardedParameters::Land() {
  if (!in_flight_) return absl::OkStatus();
  const size_t index = *in_flight_;
  const Bucket& bucket = buckets_[index];
  in_flight_.reset();
  LL_ASSIGN_OR_RETURN(const at::Tensor sum, reduce_.Finish());
  if (stage_ == 0) LL_RETURN_IF_ERROR(Share(bucket, sum));
  Keep(index, sum);
  if (bucket.pieces.size() == 1) Drop(bucket);
  flat_ = at::Tensor();
  return absl::OkStatus();
}

absl::Status ShardedParameters::Share(const Bucket& bucket, const at::Tensor& sum) {
  const auto& [begin, end] = bucket.parts[static_cast<size_t>(world_.rank())];
  if (end > begin) flat_.narrow(0, begin, end - begin).copy_(sum);
  AllGather gather;
  LL_RETURN_IF_ERROR(gather.Start(world_, flat_, bucket.parts));
  LL_RETURN_IF_ERROR(gather.Finish());
  Separate(flat_, GradientsOf(bucket, parameters_));
  return absl::OkStatus();
}

void ShardedParameters::Keep(size_t index, const at::Tensor& sum) {
  if (stage_ == 0) return;
  const size_t last = index + 1 < first_slice_.size() ? first_slice_[index + 1] : slices_.size();
  int64_t offset = 0;
  for (size_t i = first_slice_[index]; i < last; ++i) {
    Slice& slice = slices_[i];
    const at::Tensor mine = sum.narrow(0, offset, slice.end - slice.begin);
    if (stage_ == 2) {
      slice.grad = mine;
    } else {
      slice.grad.copy_(mine);
    }
    offset += mine.numel();
  }
}

void ShardedParameters::Drop(const Bucket& bucket) {
  if (stage_ < 2) return;
  for (const Piece& piece : bucket.pieces) {
    const size_t storage = gradients_.IndexOf(piece.parameter);
    if (--unread_[storage] == 0) gradients_.Free(storage);
  }
}

absl::StatusOr<double> ShardedParameters::GradNorm() {
  std::vector<int64_t> first(parameters_.size() + 1, 0);  // block of a parameter
  for (size_t i = 0; i < parameters_.size(); ++i)
    first[i + 1] = first[i] + SumSquaresBlocks(parameters_[i].compute.numel());
  at::Tensor sums;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    // Where the gradients lie: a GPU is waited for once, when the last is enqueued.
    sums = at::zeros({first.back()}, parameters_.empty()
                                         ? at::TensorOptions(at::kDouble)
                                         : parameters_[0].compute.options().dtype(at::kDouble));
    for (const Slice& slice : slices_) {
      at::Tensor mine = sums.narrow(0, first[slice.parameter] + slice.begin / kSumSquaresBlock,
                                    SumSquaresBlocks(slice.end - slice.begin));
      BlockSumSquares(slice.grad, mine);
    }
    return absl::OkStatus();
  }));
  if (stage_ > 0) LL_RETURN_IF_ERROR(world_.AllReduceSum({sums}));  // the others' are zero: exact
  LL_RETURN_IF_ERROR(TorchTry([&] {
    sums = sums.cpu();
    return absl::OkStatus();
  }));
  const double* p = sums.const_data_ptr<double>();
  double total = 0;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    double of_parameter = 0;
    for (int64_t block = first[i]; block < first[i + 1]; ++block) of_parameter += p[block];
    total += of_parameter;
  }
  return std::sqrt(total);
}

absl::Status ShardedParameters::GatherParameters() {
  if (stage_ == 0) return absl::OkStatus();
  AllGather gather;
  std::vector<at::Tensor> flats, in_flight;
  at::Tensor joined, joined_in_flight;
  const auto land = [&]() -> absl::Status {
    if (in_flight.empty()) return absl::OkStatus();
    LL_RETURN_IF_ERROR(gather.Finish());
    Separate(joined_in_flight, in_flight);
    in_flight.clear();
    return absl::OkStatus();
  };
  const absl::Status gathered = TorchTry([&]() -> absl::Status {
    for (const Bucket& bucket : buckets_) {
      flats.clear();
      for (const Piece& piece : bucket.pieces)
        flats.push_back(Flat(parameters_[piece.parameter].compute, piece).view(at::kByte));
      joined = Joined(flats);
      LL_RETURN_IF_ERROR(land());
      LL_RETURN_IF_ERROR(gather.Start(world_, joined, BytesOf(bucket)));
      in_flight = std::move(flats);
      joined_in_flight = joined;
    }
    return land();
  });
  return gathered;
}

RankParts ShardedParameters::BytesOf(const Bucket& bucket) const {
  const auto bytes = [&](int64_t elements) {
    int64_t sum = 0;
    for (const Piece& piece : bucket.pieces) {
      const int64_t here = std::min(elements, piece.size());
      sum += here * parameters_[piece.parameter].compute.element_size();
      elements -= here;
    }
    return sum;
  };
  RankParts parts;
  for (const auto& [begin, end] : bucket.parts) parts.emplace_back(bytes(begin), bytes(end));
  return parts;
}

}  // namespace ll
