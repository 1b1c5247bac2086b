#include "model/llama_layer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/ops.h"

namespace ll {
namespace {

// Dropout streams: one a projection, 16 a layer.
constexpr uint32_t kStreamsPerLayer = 16, kQkv = 0, kO = 1, kGateUp = 2, kDown = 3;

}  // namespace

absl::StatusOr<NormWeight> NormWeight::Create(const std::string& name, int64_t width,
                                              const ModelOptions& options, WeightSource& source) {
  LL_ASSIGN_OR_RETURN(at::Tensor w, source.Get(name));
  if (w.dim() != 1 || w.size(0) != width) {
    return absl::FailedPreconditionError(absl::StrCat(name, ": expected shape [", width,
                                                      "], found ", w.dim(), " dimensions and ",
                                                      w.numel(), " elements"));
  }
  NormWeight norm{name, w.to(options.fp32(), /*non_blocking=*/false, /*copy=*/true), {}, {}};
  if (options.train_norm || options.train_all) {
    norm.master = norm.w;
    if (options.trainable) norm.grad = at::zeros({width}, options.fp32());
  }
  return norm;
}

void NormWeight::AppendParameters(std::vector<Parameter>& parameters) const {
  if (master.defined()) parameters.push_back({name, w, master, grad, false, false});
}

absl::StatusOr<LlamaLayer> LlamaLayer::Create(const LlamaConfig& config, int64_t index,
                                              const ModelOptions& options, WeightSource& source) {
  LlamaLayer layer;
  layer.eps_ = config.rms_norm_eps;
  layer.tile_tokens_ = options.tile_tokens;
  layer.rotated_heads_ = config.num_attention_heads + config.num_key_value_heads;
  layer.stream_ = static_cast<uint32_t>(index) * kStreamsPerLayer;
  const int64_t d = config.hidden_size, f = config.intermediate_size;
  const int64_t q = config.num_attention_heads * config.head_dim,
                kv = config.num_key_value_heads * config.head_dim;
  layer.window_ = config.WindowOf(index);
  layer.q_width_ = q;
  layer.kv_width_ = kv;
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  const auto part = [&](const std::string& block, const std::string& name, int64_t rows) {
    const auto& targets = options.lora.target_modules;
    const bool lora = std::find(targets.begin(), targets.end(), name) != targets.end();
    return Projection::PartSpec{prefix + block + "." + name, rows, lora, /*bias=*/false};
  };
  LL_ASSIGN_OR_RETURN(layer.input_norm_,
                      NormWeight::Create(prefix + "input_layernorm.weight", d, options, source));
  std::vector<Projection::PartSpec> qkv = {part("self_attn", "q_proj", q),
                                           part("self_attn", "k_proj", kv),
                                           part("self_attn", "v_proj", kv)};
  for (Projection::PartSpec& p : qkv) p.bias = config.HasQkvBias();
  LL_ASSIGN_OR_RETURN(layer.qkv_, Projection::Create(qkv, d, options, source));
  if (config.HasQkNorm()) {
    LL_ASSIGN_OR_RETURN(layer.q_norm_, NormWeight::Create(prefix + "self_attn.q_norm.weight",
                                                          config.head_dim, options, source));
    LL_ASSIGN_OR_RETURN(layer.k_norm_, NormWeight::Create(prefix + "self_attn.k_norm.weight",
                                                          config.head_dim, options, source));
  }
  LL_ASSIGN_OR_RETURN(layer.o_,
                      Projection::Create({part("self_attn", "o_proj", d)}, q, options, source));
  LL_ASSIGN_OR_RETURN(
      layer.post_norm_,
      NormWeight::Create(prefix + "post_attention_layernorm.weight", d, options, source));
  LL_ASSIGN_OR_RETURN(layer.gate_up_,
                      Projection::Create({part("mlp", "gate_proj", f), part("mlp", "up_proj", f)},
                                         d, options, source));
  LL_ASSIGN_OR_RETURN(layer.down_,
                      Projection::Create({part("mlp", "down_proj", d)}, f, options, source));
  return layer;
}

void LlamaLayer::NormHeads(LayerActivations& s) const {
  if (!q_norm_.w.defined()) return;
  s.qk_raw.copy_(s.qkv.narrow(1, 0, q_width_ + kv_width_));
  at::Tensor q = s.qkv.narrow(1, 0, q_width_), k = s.qkv.narrow(1, q_width_, kv_width_);
  HeadRmsNormForward(s.qk_raw.narrow(1, 0, q_width_), q_norm_.w, eps_, q, s.rstd_q);
  HeadRmsNormForward(s.qk_raw.narrow(1, q_width_, kv_width_), k_norm_.w, eps_, k, s.rstd_k);
}

void LlamaLayer::NormHeadsBackward(const LayerActivations& s, Workspace& w) const {
  if (!q_norm_.w.defined()) return;
  at::Tensor dq = w.dqkv.narrow(1, 0, q_width_), dk = w.dqkv.narrow(1, q_width_, kv_width_);
  at::Tensor dwq = q_norm_.grad, dwk = k_norm_.grad;
  HeadRmsNormBackward(dq, s.qk_raw.narrow(1, 0, q_width_), q_norm_.w, s.rstd_q, dwq);
  HeadRmsNormBackward(dk, s.qk_raw.narrow(1, q_width_, kv_width_), k_norm_.w, s.rstd_k, dwk);
}

std::vector<LlamaLayer::Tile> LlamaLayer::Tiles(const LayerActivations& s,
                                                const std::vector<Segment>& tokens) const {
  const int64_t rows = s.x.size(0);
  std::vector<Tile> tiles;
  for (const Segment& part : EqualTiles(rows, tile_tokens_)) {
    Tile tile{part.begin, part.end - part.begin, part.end - part.begin == rows, tokens};
    if (!tile.all) tile.tokens = tokens.empty() ? std::vector<Segment>{part} : PartOf(tokens, part);
    tiles.push_back(std::move(tile));
  }
  return tiles;
}

at::Tensor LlamaLayer::Normalize(const Tile& tile, const NormWeight& norm, const at::Tensor& x,
                                 const at::Tensor& rstd, const Workspace& w) const {
  at::Tensor normed = tile.In(w.normed), divisors = tile.Of(rstd);
  RmsNormForward(tile.Of(x), norm.w, eps_, normed, divisors);
  return normed;
}

void LlamaLayer::NormalizeBackward(const Tile& tile, const NormWeight& norm, const at::Tensor& x,
                                   const at::Tensor& rstd, const Workspace& w) const {
  at::Tensor dx = tile.Of(w.dx), dw = norm.grad;
  RmsNormBackward(tile.In(w.dnormed), tile.Of(x), norm.w, tile.Of(rstd), dx, dw);
}

LlamaLayer::AttentionWeights LlamaLayer::OpenAttention(bool again) const {
  using Use = Projection::Use;
  using Place = Projection::Place;
  const auto open = [again](const Projection& p, Place forward, Place both) {
    return again && p.OpensAsOne() ? p.Open(Use::kBoth, both) : p.Open(Use::kForward, forward);
  };
  return {open(qkv_, Place::kFirst, Place::kThird), open(o_, Place::kSecond, Place::kFourth)};
}

absl::Status LlamaLayer::AttentionBlock(const RowContext& row, const AttentionWeights& weights,
                                        LayerActivations& s, Workspace& w) const {
  const std::vector<Tile> tiles = Tiles(s, row.tokens);
  for (const Tile& tile : tiles) {
    at::Tensor qkv = tile.Of(s.qkv);
    qkv_.Forward(weights.qkv, Normalize(tile, input_norm_, s.x, s.rstd_in, w),
                 KeyOf(row, tile, kQkv), qkv, tile.Of(s.low_rank.qkv));
  }
  NormHeads(s);
  RopeInPlace(s.qkv, rotated_heads_, row.cos, row.sin, /*backward=*/false);
  if (row.shard) {
    LL_RETURN_IF_ERROR(
        ShardAttentionForward(*row.shard, *row.peers, s.qkv, s.received, s.attention, s.lse));
  } else if (row.ring) {
    LL_RETURN_IF_ERROR(
        RingAttentionForward(*row.ring, *row.peers, s.qkv, w.ring, s.attention, s.lse));
  } else {
    AttentionForward(row.plan, window_, s.qkv, s.attention, s.lse);
  }
  for (const Tile& tile : tiles) {
    at::Tensor out = tile.Of(s.x_mid);
    o_.ForwardAdd(weights.o, tile.Of(s.attention), tile.Of(s.x), KeyOf(row, tile, kO), out,
                  tile.Of(s.low_rank.o));
  }
  return absl::OkStatus();
}

absl::Status LlamaLayer::Forward(const RowContext& row, LayerActivations& s, Workspace& w,
                                 at::Tensor& x_out) const {
  LL_RETURN_IF_ERROR(AttentionBlock(row, OpenAttention(/*again=*/false), s, w));
  const auto wide = gate_up_.Open(Projection::Use::kForward, Projection::Place::kFirst);
  const auto down = down_.Open(Projection::Use::kForward, Projection::Place::kSecond);
  for (const Tile& tile : Tiles(s, row.tokens)) {
    at::Tensor gate_up = Kept(tile, s, s.gate_up), product = tile.In(w.product),
               out = tile.Of(x_out);
    gate_up_.Forward(wide, Normalize(tile, post_norm_, s.x_mid, s.rstd_mid, w),
                     KeyOf(row, tile, kGateUp), gate_up, Kept(tile, s, s.low_rank.gate_up));
    SwigluForward(gate_up, product);
    down_.ForwardAdd(down, product, tile.Of(s.x_mid), KeyOf(row, tile, kDown), out,
                     tile.Of(s.low_rank.down));
  }
  return absl::OkStatus();
}

void LlamaLayer::BackwardMlp(const RowContext& row, Recompute recompute, LayerActivations& s,
                             Workspace& w) const {
  const bool again = recompute != Recompute::kNone;
  const auto wide = gate_up_.Open(again ? Projection::Use::kBoth : Projection::Use::kBackward,
                                  Projection::Place::kFirst);
  const auto down = down_.Open(Projection::Use::kBackward, Projection::Place::kSecond);
  for (const Tile& tile : Tiles(s, row.tokens)) {
    at::Tensor normed, gate_up = Kept(tile, s, s.gate_up);
    const at::Tensor low_rank = Kept(tile, s, s.low_rank.gate_up);
    if (again || gate_up_.NeedsInput()) {
      const OpPhase phase(again ? "recompute" : "backward");
      normed = Normalize(tile, post_norm_, s.x_mid, s.rstd_mid, w);
      if (again) gate_up_.Forward(wide, normed, KeyOf(row, tile, kGateUp), gate_up, low_rank);
    }
    at::Tensor product = tile.In(w.product), dproduct = tile.In(w.dproduct),
               dnormed = tile.In(w.dnormed);
    if (down_.NeedsInput()) SwigluForward(gate_up, product);
    down_.Backward(down, product, tile.Of(w.dx), KeyOf(row, tile, kDown), dproduct,
                   tile.Of(s.low_rank.down));
    SwigluBackward(gate_up, dproduct);  // gate_up is its gradient from here on
    gate_up_.Backward(wide, normed, gate_up, KeyOf(row, tile, kGateUp), dnormed, low_rank);
    NormalizeBackward(tile, post_norm_, s.x_mid, s.rstd_mid, w);
  }
}

absl::Status LlamaLayer::BackwardAttention(const RowContext& row, AttentionWeights weights,
                                           LayerActivations& s, Workspace& w) const {
  using Use = Projection::Use;
  using Place = Projection::Place;
  const std::vector<Tile> tiles = Tiles(s, row.tokens);
  // x_mid is not needed any more.
  at::Tensor& dattention = w.dattention.defined() ? w.dattention : s.x_mid;
  if (!weights.o.backward.defined()) weights.o = o_.Open(Use::kBackward, Place::kSecond);
  for (const Tile& tile : tiles) {
    at::Tensor dinput = tile.Of(dattention);
    o_.Backward(weights.o, tile.Of(s.attention), tile.Of(w.dx), KeyOf(row, tile, kO), dinput,
                tile.Of(s.low_rank.o));
  }
  if (row.shard) {
    LL_RETURN_IF_ERROR(ShardAttentionBackward(*row.shard, *row.peers, s.qkv, s.received,
                                              s.attention, s.lse, dattention, w.dqkv));
  } else if (row.ring) {
    LL_RETURN_IF_ERROR(RingAttentionBackward(*row.ring, *row.peers, s.qkv, s.attention, s.lse,
                                             dattention, w.ring, w.dqkv));
  } else {
    AttentionBackward(row.plan, window_, s.qkv, s.attention, s.lse, dattention, w.dqkv);
  }
  RopeInPlace(w.dqkv, rotated_heads_, row.cos, row.sin, /*backward=*/true);
  NormHeadsBackward(s, w);
  if (!weights.qkv.backward.defined()) weights.qkv = qkv_.Open(Use::kBackward, Place::kFirst);
  for (const Tile& tile : tiles) {
    at::Tensor normed, dnormed = tile.In(w.dnormed);
    if (qkv_.NeedsInput()) normed = Normalize(tile, input_norm_, s.x, s.rstd_in, w);
    qkv_.Backward(weights.qkv, normed, tile.Of(w.dqkv), KeyOf(row, tile, kQkv), dnormed,
                  tile.Of(s.low_rank.qkv));
    NormalizeBackward(tile, input_norm_, s.x, s.rstd_in, w);
  }
  return absl::OkStatus();
}

absl::Status LlamaLayer::Backward(const RowContext& row, Recompute recompute, LayerActivations& s,
                                  Workspace& w) const {
  AttentionWeights weights;
  if (recompute == Recompute::kFull) {
    const OpPhase phase("recompute");
    weights = OpenAttention(/*again=*/true);
    LL_RETURN_IF_ERROR(AttentionBlock(row, weights, s, w));
  }
  BackwardMlp(row, recompute, s, w);
  return BackwardAttention(row, std::move(weights), s, w);
}

void LlamaLayer::AppendFrozen(std::vector<at::Tensor>& matrices) const {
  for (const Projection* projection : {&qkv_, &o_, &gate_up_, &down_})
    projection->AppendFrozen(matrices);
}

void LlamaLayer::AppendParameters(std::vector<Parameter>& parameters) const {
  input_norm_.AppendParameters(parameters);
  qkv_.AppendParameters(parameters);
  q_norm_.AppendParameters(parameters);
  k_norm_.AppendParameters(parameters);
  o_.AppendParameters(parameters);
  post_norm_.AppendParameters(parameters);
  gate_up_.AppendParameters(parameters);
  down_.AppendParameters(parameters);
}

at::Tensor LlamaLayer::Weight(const std::string& hf_name) const {
  for (const NormWeight* norm : {&input_norm_, &post_norm_, &q_norm_, &k_norm_}) {
    if (norm->name == hf_name) return norm->w;
  }
  for (const Projection* projection : {&qkv_, &o_, &gate_up_, &down_}) {
    if (at::Tensor w = projection->Weight(hf_name); w.defined()) return w;
  }
  return {};
}

}  // namespace ll
