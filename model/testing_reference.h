// For tests: the model once more, as obvious as can be: dense masked attention, transposed heads,
// libtorch's autograd, all in fp32.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "kernels/ops.h"
#include "model/llama.h"
#include "model/rope.h"

namespace ll {

// Reads the model's weights by name: trained ones are fp32 leaves that collect gradients.
class LlamaReference {
 public:
  explicit LlamaReference(Llama& model)
      : config_(model.config()), options_(model.options()), model_(model) {
    for (const Parameter& p : model.parameters()) {
      leaves_[p.name] = p.master.detach().clone().set_requires_grad(true);
    }
  }

  // Sum of the row's NLL, as a differentiable scalar.
  at::Tensor Loss(const Row& row, const AttentionSpec& spec) {
    const int64_t n = row.tokens.numel();
    dropout_key_ = row.dropout_key;
    at::Tensor x = W("model.embed_tokens.weight").index_select(0, row.tokens);
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
      x = Layer(x, l, Mask(row, spec, config_.WindowOf(l)));
    }
    x = Norm(x, "model.norm.weight");
    const at::Tensor head =
        W(config_.tie_word_embeddings ? "model.embed_tokens.weight" : "lm_head.weight");
    const at::Tensor log_p = at::log_softmax(x.matmul(head.t()), 1);
    const at::Tensor valid = row.labels.ge(0);
    const at::Tensor picked = log_p.gather(1, row.labels.clamp_min(0).view({n, 1})).view({n});
    return -at::where(valid, picked, at::zeros_like(picked)).sum();
  }

  at::Tensor Gradient(const std::string& name) { return leaves_.at(name).grad(); }

 private:
  at::Tensor W(const std::string& name) {
    const auto it = leaves_.find(name);
    return it != leaves_.end() ? it->second : model_.Weight(name)->to(at::kFloat);
  }
  // RMS norm over the last dimension.
  at::Tensor Norm(const at::Tensor& x, const std::string& name) {
    return x * at::rsqrt(x.pow(2).mean(-1, true) + config_.rms_norm_eps) * W(name);
  }
  // `stream` is the projection's dropout stream within the layer.
  at::Tensor Linear(const at::Tensor& x, const std::string& name, int64_t layer, uint32_t stream) {
    at::Tensor y = x.matmul(W(name + ".weight").t());
    if (config_.HasQkvBias() &&
        (name.ends_with("q_proj") || name.ends_with("k_proj") || name.ends_with("v_proj"))) {
      y = y + W(name + ".bias");
    }
    if (!leaves_.contains(name + ".lora_A.weight")) return y;
    const LoraSpec& lora = options_.lora;
    const double scale =
        lora.use_rslora ? lora.alpha / std::sqrt(lora.rank) : lora.alpha / lora.rank;
    at::Tensor mask = at::ones_like(x.detach());
    if (lora.dropout > 0 && dropout_key_ != 0) {
      Dropout(at::ones_like(x.detach()), lora.dropout, dropout_key_,
              static_cast<uint32_t>(layer * 16 + stream), mask);
      mask *= DropoutScale(lora.dropout);
    }
    return y + (x * mask)
                       .matmul(W(name + ".lora_A.weight").t())
                       .matmul(W(name + ".lora_B.weight").t()) *
                   scale;
  }
  at::Tensor Rope(const at::Tensor& x) {  // [H, N, D]
    const int64_t n = x.size(1), half = x.size(2) / 2;
    const RopeTable table = MakeRopeTable(config_, n);
    const auto [cos, sin] = CosSin(table, n);
    const at::Tensor a = x.narrow(2, 0, half), b = x.narrow(2, half, half);
    return at::cat({a * cos - b * sin, b * cos + a * sin}, 2);
  }
  // True [H, N, N] where query t of head h sees key u, straight from the definition.
  at::Tensor Mask(const Row& row, const AttentionSpec& spec, int64_t window) {
    const int64_t n = row.tokens.numel(), h = config_.num_attention_heads, g = spec.group_tokens;
    at::Tensor mask = at::zeros({h, n, n}, at::kBool);
    auto m = mask.accessor<bool, 3>();
    auto documents = row.documents;
    if (documents.empty()) documents = {{0, n}};
    for (const auto& [start, end] : documents) {
      for (int64_t head = 0; head < h; ++head) {
        const bool shifted = spec.kind == AttentionKind::kS2 && head >= h / 2;
        const auto group = [&](int64_t t) -> int64_t {  // t counted from the document's start
          if (spec.kind == AttentionKind::kFull) return 0;
          if (!shifted) return t / g;
          if (spec.wrap == WrapKind::kRoll) return ((t - g / 2) % n + n) % n / g;
          return (t + g - g / 2) / g;
        };
        const auto order = [&](int64_t t) {
          return shifted && spec.wrap == WrapKind::kRoll ? ((t - g / 2) % n + n) % n : t;
        };
        for (int64_t t = start; t < end; ++t) {
          for (int64_t u = start; u < end; ++u) {
            m[head][t][u] = group(t - start) == group(u - start) &&
                            order(u - start) <= order(t - start) && (window == 0 || u > t - window);
          }
        }
      }
    }
    return mask;
  }
  at::Tensor Layer(const at::Tensor& x, int64_t l, const at::Tensor& mask) {
    const std::string p = "model.layers." + std::to_string(l) + ".";
    const int64_t n = x.size(0), h = config_.num_attention_heads, k = config_.num_key_value_heads,
                  d = config_.head_dim;
    const auto heads = [&](const at::Tensor& t, int64_t count) {
      return t.view({n, count, d}).transpose(0, 1);
    };
    const at::Tensor a = Norm(x, p + "input_layernorm.weight");
    at::Tensor q = heads(Linear(a, p + "self_attn.q_proj", l, 0), h);
    at::Tensor key = heads(Linear(a, p + "self_attn.k_proj", l, 0), k);
    if (config_.HasQkNorm()) {
      q = Norm(q, p + "self_attn.q_norm.weight");
      key = Norm(key, p + "self_attn.k_norm.weight");
    }
    q = Rope(q);
    key = Rope(key).repeat_interleave(h / k, 0);
    const at::Tensor v =
        heads(Linear(a, p + "self_attn.v_proj", l, 0), k).repeat_interleave(h / k, 0);
    const at::Tensor scores = q.matmul(key.transpose(1, 2)) / std::sqrt(static_cast<double>(d));
    const at::Tensor weights = at::softmax(scores.masked_fill(mask.logical_not(), -INFINITY), 2);
    const at::Tensor attention = weights.matmul(v).transpose(0, 1).reshape({n, h * d});
    const at::Tensor mid = x + Linear(attention, p + "self_attn.o_proj", l, 1);
    const at::Tensor b = Norm(mid, p + "post_attention_layernorm.weight");
    const at::Tensor gate = Linear(b, p + "mlp.gate_proj", l, 2),
                     up = Linear(b, p + "mlp.up_proj", l, 2);
    return mid + Linear(at::silu(gate) * up, p + "mlp.down_proj", l, 3);
  }

  LlamaConfig config_;
  ModelOptions options_;
  Llama& model_;
  uint64_t dropout_key_ = 0;
  std::map<std::string, at::Tensor> leaves_;
};

}  // namespace ll
