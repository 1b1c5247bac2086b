#include "model/llama_layer.h"

#include <algorithm>

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

absl::Status LlamaLayer::AttentionBlock(const RowContext& row, LayerActivations& s,
                                        Workspace& w) const {
  RmsNormForward(s.x, input_norm_.w, eps_, w.normed, s.rstd_in);
  qkv_.Forward(w.normed, KeyOf(row, kQkv), s.qkv);
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
  o_.ForwardAdd(s.attention, s.x, KeyOf(row, kO), s.x_mid);
  return absl::OkStatus();
}

void LlamaLayer::GateUp(const RowContext& row, LayerActivations& s, Workspace& w) const {
  RmsNormForward(s.x_mid, post_norm_.w, eps_, w.normed, s.rstd_mid);
  gate_up_.Forward(w.normed, KeyOf(row, kGateUp), s.gate_up);
}

absl::Status LlamaLayer::Forward(const RowContext& row, LayerActivations& s, Workspace& w,
                                 at::Tensor& x_out) const {
  LL_RETURN_IF_ERROR(AttentionBlock(row, s, w));
  GateUp(row, s, w);
  SwigluForward(s.gate_up, w.product);
  down_.ForwardAdd(w.product, s.x_mid, KeyOf(row, kDown), x_out);
  return absl::OkStatus();
}

absl::Status LlamaLayer::Restore(const RowContext& row, Recompute recompute, LayerActivations& s,
                                 Workspace& w) const {
  if (recompute == Recompute::kNone) return absl::OkStatus();
  const OpPhase phase("recompute");
  if (recompute == Recompute::kFull) LL_RETURN_IF_ERROR(AttentionBlock(row, s, w));
  GateUp(row, s, w);
  return absl::OkStatus();
}

void LlamaLayer::BackwardMlp(const RowContext& row, LayerActivations& s, Workspace& w) const {
  if (down_.NeedsInput()) SwigluForward(s.gate_up, w.product);
  down_.Backward(w.product, w.dx, KeyOf(row, kDown), w.dproduct);
  SwigluBackward(s.gate_up, w.dproduct);  // s.gate_up is its gradient from here on
  if (gate_up_.NeedsInput()) RmsNormForward(s.x_mid, post_norm_.w, eps_, w.normed, s.rstd_mid);
  gate_up_.Backward(w.normed, s.gate_up, KeyOf(row, kGateUp), w.dnormed);
  at::Tensor dw = post_norm_.grad;
  RmsNormBackward(w.dnormed, s.x_mid, post_norm_.w, s.rstd_mid, w.dx, dw);
}

absl::Status LlamaLayer::BackwardAttention(const RowContext& row, LayerActivations& s,
                                           Workspace& w) const {
  o_.Backward(s.attention, w.dx, KeyOf(row, kO), w.dattention);
  if (row.shard) {
    LL_RETURN_IF_ERROR(ShardAttentionBackward(*row.shard, *row.peers, s.qkv, s.received,
                                              s.attention, s.lse, w.dattention, w.dqkv));
  } else if (row.ring) {
    LL_RETURN_IF_ERROR(RingAttentionBackward(*row.ring, *row.peers, s.qkv, s.attention, s.lse,
                                             w.dattention, w.ring, w.dqkv));
  } else {
    AttentionBackward(row.plan, window_, s.qkv, s.attention, s.lse, w.dattention, w.dqkv);
  }
  RopeInPlace(w.dqkv, rotated_heads_, row.cos, row.sin, /*backward=*/true);
  NormHeadsBackward(s, w);
  if (qkv_.NeedsInput()) RmsNormForward(s.x, input_norm_.w, eps_, w.normed, s.rstd_in);
  qkv_.Backward(w.normed, w.dqkv, KeyOf(row, kQkv), w.dnormed);
  at::Tensor dw = input_norm_.grad;
  RmsNormBackward(w.dnormed, s.x, input_norm_.w, s.rstd_in, w.dx, dw);
  return absl::OkStatus();
}

absl::Status LlamaLayer::Backward(const RowContext& row, LayerActivations& s, Workspace& w) const {
  BackwardMlp(row, s, w);
  return BackwardAttention(row, s, w);
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
