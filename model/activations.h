// The memory of one row's forward and backward pass: what each layer saves, and scratch that layers
// share.
#pragma once

#include <vector>

#include <ATen/ATen.h>

#include "model/llama.h"
#include "model/ring_attention.h"

namespace ll {

// What the matrices A of each projection made of its input, [., R] with the R of its adapters.
// Undefined where a projection has no adapters, or Backward computes it again.
struct LowRank {
  at::Tensor qkv, o;   // N rows
  at::Tensor gate_up;  // as many rows as LayerActivations::gate_up
  at::Tensor down;     // N rows; only where gate_up is kept
};

// What a layer's forward pass leaves for its backward pass. N tokens, T of them a tile
// (ModelOptions::tile_tokens), d hidden, H / K query / KV
// heads of D, F intermediate. Norm outputs and the MLP's product are cheap and computed again.
struct LayerActivations {
  at::Tensor x;        // [N, d] the layer's input
  at::Tensor rstd_in;  // fp32 [N] of the input norm
  at::Tensor qkv;      // [N, (H + 2K) D], q and k rotated
  at::Tensor qk_raw;   // [N, (H + K) D] before their norms; undefined without q_norm and k_norm
  at::Tensor rstd_q, rstd_k;  // fp32 [N, H], [N, K] of those norms
  at::Tensor attention;       // [N, H D]
  at::Tensor lse;             // fp32 [H, N]
  at::Tensor x_mid;     // [N, d] after the attention's residual; the backward pass overwrites it
  at::Tensor rstd_mid;  // fp32 [N] of the post-attention norm
  // [N, 2F]; where it is computed again, [T, 2F] of the tile of tokens at hand.
  at::Tensor gate_up;
  at::Tensor received;  // [elements] keys and values of other ranks (shard_attention.h)
  LowRank low_rank;
};

// Scratch that every layer uses in turn. Of T rows what is used tile by tile.
struct Workspace {
  at::Tensor normed;    // [T, d]
  at::Tensor product;   // [T, F] silu(gate) * up
  at::Tensor dnormed;   // [T, d]
  at::Tensor dproduct;  // [T, F]
  // [N, H D]; undefined where that is as wide as x_mid, whose place it takes.
  at::Tensor dattention;
  at::Tensor dqkv;  // [N, (H + 2K) D]
  at::Tensor dx;  // [N, d] gradient on the residual stream, in the place of the last layer's output
  RingBuffers ring;
};

// Owns the buffers and hands out views for a row's length. They grow to the longest row seen and
// are then reused, so that a step touches no fresh pages. Not thread-safe.
class ActivationBuffers {
 public:
  ActivationBuffers(const LlamaConfig& config, const ModelOptions& options)
      : config_(config), options_(options) {}

  // Views for rows of `tokens`. With `training` every layer has buffers of its own as
  // options.recompute says, and the workspace has gradients; without, all layers share one set.
  // `received_elements`: of LayerActivations::received. Earlier views become invalid.
  void Prepare(int64_t tokens, bool training, int64_t received_elements = 0);

  // Layer l's saved tensors. output(l) is where layer l writes the residual stream: the next
  // layer's x.
  LayerActivations& layer(int64_t l) { return layers_[l]; }
  at::Tensor& output(int64_t l) {
    return l + 1 < static_cast<int64_t>(layers_.size()) ? layers_[l + 1].x : final_x_;
  }
  at::Tensor& final_x() { return final_x_; }
  Workspace& workspace() { return workspace_; }

 private:
  LayerActivations NewLayer(int64_t tokens, int64_t gate_up_tokens) const;
  LowRank NewLowRank(int64_t tokens, int64_t gate_up_tokens) const;
  void PrepareViews(int64_t tokens, bool training);
  void PrepareReceived(int64_t elements);

  const LlamaConfig config_;
  const ModelOptions options_;
  int64_t capacity_ = 0, tokens_ = 0;
  bool training_ = false;
  std::vector<LayerActivations> full_layers_, layers_;  // of capacity_ tokens; views of tokens_
  Workspace full_workspace_, workspace_;
  at::Tensor full_final_x_, final_x_;
};

}  // namespace ll
