// The layers' frozen matrices (bf16, fp32, or NF4's or fp8's codes and scales) divided over ranks:
// each keeps an equal share of every layer's bytes and two buffers of a whole layer. While a layer
// computes in one, the next is gathered into the other (ZeRO-3's partitioning, Rajbhandari et al.
// 2020, of what is not trained). A rank holds base / W + 2 layers instead of the base, and receives
// (W - 1) / W of the base for a forward pass and as much for a backward pass, less the layers that
// still lie in the buffers when it turns round.
//
// The matrices are the same bytes as undivided ones, so results are the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "model/row_peers.h"

namespace ll {

// Not thread-safe. Every rank adds the same layers and makes the same passes.
class ShardedBase {
 public:
  // `peers` must outlive this; nothing else exchanges through them.
  explicit ShardedBase(RowPeers& peers) : peers_(peers) {}

  // Takes the next layer's matrices and keeps this rank's share of their bytes. The tensors (and
  // every copy of these handles) have memory only while the layer is in use.
  void AddLayer(const std::vector<at::Tensor>& matrices);

  // The pass that follows uses these layers in this order, each from its Use to the next Use.
  void StartPass(std::vector<size_t> order);
  // Collective. The layer's matrices are there; the next one's are on their way.
  absl::Status Use(size_t layer);

  // Bytes of matrices in memory, buffers included.
  int64_t HeldBytes() const;

 private:
  struct Matrix {
    at::Tensor tensor;
    std::vector<int64_t> sizes;
    int64_t offset = 0, bytes = 0;  // in the layer
  };
  struct Layer {
    std::vector<Matrix> matrices;
    int64_t bytes = 0;  // a multiple of the shares'
    at::Tensor share;   // u8, this rank's
  };
  static constexpr size_t kNone = static_cast<size_t>(-1);

  // The buffer that holds a layer, or kNone.
  size_t BufferOf(size_t layer) const;
  absl::Status StartGather(size_t layer, size_t buffer);
  absl::Status FinishGather();
  void Bind(const Layer& layer, const at::Tensor& buffer);

  RowPeers& peers_;
  std::vector<Layer> layers_;
  at::Tensor buffers_[2];               // u8
  size_t holds_[2] = {kNone, kNone};    // the layer in each
  size_t arriving_ = kNone, into_ = 0;  // the layer under way, and its buffer
  std::vector<size_t> order_;
  size_t next_ = 0;  // in order_
};

}  // namespace ll
