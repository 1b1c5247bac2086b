#include "model/sharded_base.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int64_t kAlign = 64;  // of a matrix in its layer: what vectors and cache lines want

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

}  // namespace

void ShardedBase::AddLayer(const std::vector<at::Tensor>& matrices) {
  Layer layer;
  for (const at::Tensor& tensor : matrices) {
    LL_CHECK(tensor.is_contiguous());
    const int64_t bytes = static_cast<int64_t>(tensor.nbytes());
    layer.matrices.push_back({tensor, tensor.sizes().vec(), layer.bytes, bytes});
    layer.bytes = RoundUp(layer.bytes + bytes, kAlign);
  }
  layer.bytes = RoundUp(layer.bytes, kAlign * peers_.world_size());
  LL_CHECK(!matrices.empty());
  const auto bytes_like = matrices[0].options().dtype(at::kByte);
  const int64_t share = layer.bytes / peers_.world_size(), first = share * peers_.rank();
  layer.share = at::zeros({share}, bytes_like);
  for (const Matrix& m : layer.matrices) {
    const int64_t begin = std::max(m.offset, first),
                  end = std::min(m.offset + m.bytes, first + share);
    if (begin >= end) continue;
    layer.share.narrow(0, begin - first, end - begin)
        .copy_(m.tensor.view({-1}).view(at::kByte).narrow(0, begin - m.offset, end - begin));
  }
  for (at::Tensor& buffer : buffers_) {
    if (!buffer.defined() || buffer.numel() < layer.bytes)
      buffer = at::empty({layer.bytes}, bytes_like);
  }
  Bind(layer, buffers_[0]);  // lets go of the memory that the matrices came with
  layers_.push_back(std::move(layer));
#ifdef __GLIBC__
  // Shares and whole matrices lie mixed in the heap: without this its holes stay resident, and a
  // rank that keeps half of a base peaks as one that keeps all of it.
  malloc_trim(0);
#endif
}

void ShardedBase::Bind(const Layer& layer, const at::Tensor& buffer) {
  for (const Matrix& m : layer.matrices) {
    at::Tensor tensor = m.tensor;
    const at::Tensor bytes = buffer.narrow(0, m.offset, m.bytes);
    const at::Tensor typed = bytes.view(tensor.scalar_type()).view(m.sizes);
    tensor.set_(typed.storage(), typed.storage_offset(), typed.sizes(), typed.strides());
  }
}

void ShardedBase::StartPass(std::vector<size_t> order) {
  LL_CHECK(arriving_ == kNone);
  order_ = std::move(order);
  next_ = 0;
}

size_t ShardedBase::BufferOf(size_t layer) const {
  return holds_[0] == layer ? 0 : holds_[1] == layer ? 1 : kNone;
}

absl::Status ShardedBase::StartGather(size_t layer, size_t buffer) {
  const Layer& l = layers_[layer];
  const int64_t share = l.share.numel();
  std::vector<PeerMessage> sends, receives;
  for (int peer = 0; peer < peers_.world_size(); ++peer) {
    at::Tensor part = buffers_[buffer].narrow(0, share * peer, share);
    if (peer == peers_.rank()) {
      part.copy_(l.share);
    } else {
      sends.push_back({peer, l.share});
      receives.push_back({peer, part});
    }
  }
  holds_[buffer] = kNone;
  arriving_ = layer;
  into_ = buffer;
  return peers_.StartExchange(std::move(sends), std::move(receives));
}

absl::Status ShardedBase::FinishGather() {
  const size_t layer = std::exchange(arriving_, kNone);
  LL_RETURN_IF_ERROR(peers_.FinishExchange());
  holds_[into_] = layer;
  return absl::OkStatus();
}

absl::Status ShardedBase::Use(size_t layer) {
  LL_CHECK(next_ < order_.size() && order_[next_] == layer);
  ++next_;
  if (arriving_ == layer) LL_RETURN_IF_ERROR(FinishGather());
  if (BufferOf(layer) == kNone) {
    LL_RETURN_IF_ERROR(StartGather(layer, 0));
    LL_RETURN_IF_ERROR(FinishGather());
  }
  const size_t buffer = BufferOf(layer);
  Bind(layers_[layer], buffers_[buffer]);
  if (next_ == order_.size() || BufferOf(order_[next_]) != kNone) return absl::OkStatus();
  return StartGather(order_[next_], 1 - buffer);
}

int64_t ShardedBase::HeldBytes() const {
  int64_t bytes = 0;
  for (const Layer& layer : layers_) bytes += layer.share.numel();
  for (const at::Tensor& buffer : buffers_) bytes += buffer.defined() ? buffer.numel() : 0;
  return bytes;
}

}  // namespace ll
