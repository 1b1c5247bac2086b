// One decoder layer: forward, recomputation and backward by hand.
//
//   h = rms_norm(x);  qkv = h Wqkv^T (+ b, Qwen2);  (Qwen3: q, k = rms_norm of each head)
//   rotate q, k;  a = attention(q, k, v);  x_mid = x + a Wo^T
//   g = rms_norm(x_mid);  [gate, up] = g Wgu^T;  x_out = x_mid + (silu(gate) * up) Wdown^T
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/activations.h"
#include "model/cached_attention.h"
#include "model/kv_cache.h"
#include "model/projection.h"
#include "model/ring_attention.h"
#include "model/shard_attention.h"
#include "model/shifted_attention.h"

namespace ll {

// A norm's weight [d]; grad is undefined where the norm is frozen, w where the model has no such
// norm.
struct NormWeight {
  std::string name;
  at::Tensor w, master, grad;  // fp32; trained, w is its own master

  static absl::StatusOr<NormWeight> Create(const std::string& name, int64_t width,
                                           const ModelOptions& options, WeightSource& source);
  void AppendParameters(std::vector<Parameter>& parameters) const;
};

// What the layers of one row share.
struct RowContext {
  AttentionPlan plan;
  // Where ranks share the row: this rank's part of it, instead of `plan`; N are its tokens.
  std::optional<ShardPlan> shard;
  std::optional<RingPlan> ring;  // the same, in full attention
  RowPeers* peers = nullptr;
  std::vector<Segment> tokens;  // of the row, that are here; empty: all
  at::Tensor cos, sin;          // fp32 [>= N, D / 2] of the tokens that are here
  uint64_t dropout_key = 0;
};

// What the layers share while new tokens pass through them (generation).
struct NewTokens {
  CachedAttention attention;
  at::Tensor cos, sin;  // fp32 [n, D / 2] of the new positions
};

class LlamaLayer {
 public:
  static absl::StatusOr<LlamaLayer> Create(const LlamaConfig& config, int64_t index,
                                           const ModelOptions& options, WeightSource& source);

  // Reads s.x, fills the rest of s and writes x_out [N, d]. This and the next two fail only where a
  // rank that shares the row does; they are collective over such ranks.
  absl::Status Forward(const RowContext& row, LayerActivations& s, Workspace& w,
                       at::Tensor& x_out) const;
  // w.dx: in, the gradient of the layer's output; out, of its input. Computes again, from s.x, what
  // `recompute` did not keep for this layer. Adds to the gradients of what is trained. Leaves
  // s.gate_up overwritten.
  absl::Status Backward(const RowContext& row, Recompute recompute, LayerActivations& s,
                        Workspace& w) const;

  // Forward for n new tokens behind `cache`, which gets their keys and values; without dropout.
  // s and w have n rows.
  void Extend(const NewTokens& context, KvCache::Layer& cache, LayerActivations& s, Workspace& w,
              at::Tensor& x_out) const;

  void AppendFrozen(std::vector<at::Tensor>& matrices) const;
  void AppendParameters(std::vector<Parameter>& parameters) const;
  at::Tensor Weight(const std::string& hf_name) const;

 private:
  struct AttentionWeights {
    Projection::Opened qkv, o;
  };
  // For the forward pass; where that is computed again (`again`), for its backward pass too, as far
  // as both read the same: in places that the MLP between them leaves alone.
  AttentionWeights OpenAttention(bool again) const;
  absl::Status AttentionBlock(const RowContext& row, const AttentionWeights& weights,
                              LayerActivations& s, Workspace& w) const;
  // q_norm and k_norm, where the model has them: on the first columns of s.qkv, and back on w.dqkv.
  void NormHeads(LayerActivations& s) const;
  void NormHeadsBackward(const LayerActivations& s, Workspace& w) const;
  // Some of the N tokens that are here.
  struct Tile {
    int64_t begin = 0, count = 0;
    bool all = false;             // of those that are here
    std::vector<Segment> tokens;  // which of the row they are; empty: all
    // Their rows of a tensor of N rows, and of a scratch tensor.
    at::Tensor Of(const at::Tensor& t) const {
      return all || !t.defined() ? t : t.narrow(0, begin, count);
    }
    at::Tensor In(const at::Tensor& scratch) const {
      return scratch.size(0) == count ? scratch : scratch.narrow(0, 0, count);
    }
  };
  // `tokens`: RowContext::tokens.
  std::vector<Tile> Tiles(const LayerActivations& s, const std::vector<Segment>& tokens) const;
  // Where a tile's gate and up are, or what their adapters keep: t has N rows or is scratch.
  static at::Tensor Kept(const Tile& tile, const LayerActivations& s, const at::Tensor& t) {
    return !t.defined() || t.size(0) == s.x.size(0) ? tile.Of(t) : tile.In(t);
  }
  // w.normed of the tile = norm(x).
  at::Tensor Normalize(const Tile& tile, const NormWeight& norm, const at::Tensor& x,
                       const at::Tensor& rstd, const Workspace& w) const;
  // Adds to w.dx what comes through the norm from w.dnormed of the tile.
  void NormalizeBackward(const Tile& tile, const NormWeight& norm, const at::Tensor& x,
                         const at::Tensor& rstd, const Workspace& w) const;
  void BackwardMlp(const RowContext& row, Recompute recompute, LayerActivations& s,
                   Workspace& w) const;
  // `weights`: what is open already.
  absl::Status BackwardAttention(const RowContext& row, AttentionWeights weights,
                                 LayerActivations& s, Workspace& w) const;
  DropoutKey KeyOf(const RowContext& row, const Tile& tile, uint32_t projection) const {
    return {row.dropout_key, stream_ + projection, tile.tokens.empty() ? nullptr : &tile.tokens};
  }

  double eps_ = 0;
  int64_t tile_tokens_ = 0;
  int64_t window_ = 0;                  // sliding window in tokens; 0 = none
  int64_t q_width_ = 0, kv_width_ = 0;  // of all query heads, of all key heads
  int64_t rotated_heads_ = 0;           // query and key heads
  uint32_t stream_ = 0;                 // this layer's first dropout stream
  NormWeight input_norm_, post_norm_, q_norm_, k_norm_;
  Projection qkv_, o_, gate_up_, down_;
};

}  // namespace ll
