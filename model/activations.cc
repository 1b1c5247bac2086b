#include "model/activations.h"

#include <algorithm>
#include <utility>

#include "model/offload.h"

namespace ll {

LowRank ActivationBuffers::NewLowRank(int64_t tokens, int64_t gate_up_tokens) const {
  if (!training_) return {};
  const auto& targets = options_.lora.target_modules;
  const auto rows = [&](int64_t n, std::initializer_list<const char*> modules) {
    int64_t columns = 0;
    for (const char* module : modules)
      columns += options_.lora.rank * std::count(targets.begin(), targets.end(), module);
    return columns > 0 ? at::empty({n, columns}, options_.compute()) : at::Tensor();
  };
  LowRank low_rank{rows(tokens, {"q_proj", "k_proj", "v_proj"}),
                   rows(tokens, {"o_proj"}),
                   rows(gate_up_tokens, {"gate_proj", "up_proj"}),
                   {}};
  if (options_.recompute == Recompute::kNone) low_rank.down = rows(tokens, {"down_proj"});
  return low_rank;
}

LayerActivations ActivationBuffers::NewLayer(int64_t tokens, int64_t gate_up_tokens) const {
  const int64_t d = config_.hidden_size, q = config_.num_attention_heads * config_.head_dim;
  const int64_t kv = config_.num_key_value_heads * config_.head_dim;
  const auto rows = [&](int64_t width) { return at::empty({tokens, width}, options_.compute()); };
  const auto stats = [&](at::IntArrayRef shape) { return at::empty(shape, options_.fp32()); };
  const bool norm = config_.HasQkNorm();
  return {rows(d),
          stats({tokens}),
          rows(q + 2 * kv),
          norm ? rows(q + kv) : at::Tensor(),
          norm ? stats({tokens, config_.num_attention_heads}) : at::Tensor(),
          norm ? stats({tokens, config_.num_key_value_heads}) : at::Tensor(),
          rows(q),
          stats({config_.num_attention_heads, tokens}),
          rows(d),
          stats({tokens}),
          at::empty({gate_up_tokens, 2 * config_.intermediate_size}, options_.compute()),
          {},
          NewLowRank(tokens, gate_up_tokens)};
}

// Layers that are computed again share one buffer and fetch its contents again.
void ActivationBuffers::PrepareReceived(int64_t elements) {
  if (elements == 0) return;
  const bool shared = !training_ || options_.recompute == Recompute::kFull;
  for (size_t l = 0; l < full_layers_.size(); ++l) {
    at::Tensor& received = full_layers_[l].received;
    if (!received.defined() || received.numel() < elements) {
      received = at::Tensor();
      received =
          shared && l > 0 ? full_layers_[0].received : at::empty({elements}, options_.compute());
    }
    layers_[l].received = received;
  }
}

void ActivationBuffers::Prepare(int64_t tokens, bool training, int64_t received_elements) {
  PrepareViews(tokens, training);
  PrepareReceived(received_elements);
}

void ActivationBuffers::PrepareViews(int64_t tokens, bool training) {
  if (tokens == tokens_ && training == training_) return;
  if (tokens > capacity_ || training != training_) {
    // Old buffers go before the new ones come.
    full_layers_.clear();
    layers_.clear();
    full_workspace_ = workspace_ = Workspace();
    full_final_x_ = final_x_ = at::Tensor();
    capacity_ = training == training_ ? tokens : std::max(tokens, capacity_);
    training_ = training;

    const int64_t d = config_.hidden_size, q = config_.num_attention_heads * config_.head_dim;
    const int64_t kv = config_.num_key_value_heads * config_.head_dim,
                  f = config_.intermediate_size;
    const auto rows = [&](int64_t width) {
      return at::empty({capacity_, width}, options_.compute());
    };
    const int64_t tile = std::min(capacity_, options_.tile_tokens);
    const auto tile_rows = [&](int64_t width) {
      return at::empty({tile, width}, options_.compute());
    };
    const Recompute recompute = training ? options_.recompute : Recompute::kFull;
    // What layers share: of selective recomputation the parts of one tile's rows.
    LayerActivations shared;
    if (recompute != Recompute::kNone)
      shared = NewLayer(recompute == Recompute::kFull ? capacity_ : 0, tile);
    std::vector<at::Tensor> slots;
    for (int64_t i = 0; i < InputOffload::kSlots && options_.offload_activations; ++i)
      slots.push_back(rows(d));
    for (int64_t l = 0; l < config_.num_hidden_layers; ++l) {
      LayerActivations layer = shared;
      if (!training) {
        layer.x_mid = layer.x;  // the residual stream, in place
      } else if (recompute == Recompute::kFull) {
        layer.x = slots.empty() ? rows(d) : slots[static_cast<size_t>(l % InputOffload::kSlots)];
      } else {
        const bool selective = recompute == Recompute::kSelective;
        layer = NewLayer(capacity_, selective ? 0 : capacity_);
        if (selective) {
          layer.gate_up = shared.gate_up;
          layer.low_rank.gate_up = shared.low_rank.gate_up;
        }
      }
      full_layers_.push_back(layer);
    }
    full_final_x_ = training ? rows(d) : full_layers_[0].x;
    full_workspace_.normed = tile_rows(d);
    full_workspace_.product = tile_rows(f);
    if (training) {
      full_workspace_.dnormed = tile_rows(d);
      full_workspace_.dproduct = tile_rows(f);
      if (q != d) full_workspace_.dattention = rows(q);
      full_workspace_.dqkv = rows(q + 2 * kv);
      full_workspace_.dx = full_final_x_;
    }
  }
  tokens_ = tokens;
  const auto view = [&](const at::Tensor& t) {
    return t.defined() ? t.narrow(0, 0, std::min(tokens, t.size(0))) : t;
  };
  layers_.clear();
  for (const LayerActivations& l : full_layers_) {
    // lse is [H, N]: its view for a shorter row is a reshaped prefix, so that it stays contiguous.
    const at::Tensor lse =
        l.lse.flatten().narrow(0, 0, config_.num_attention_heads * tokens).view({-1, tokens});
    layers_.push_back({view(l.x), view(l.rstd_in), view(l.qkv), view(l.qk_raw), view(l.rstd_q),
                       view(l.rstd_k), view(l.attention), lse, view(l.x_mid), view(l.rstd_mid),
                       view(l.gate_up), l.received,
                       LowRank{view(l.low_rank.qkv), view(l.low_rank.o), view(l.low_rank.gate_up),
                               view(l.low_rank.down)}});
  }
  const Workspace& w = full_workspace_;
  RingBuffers ring = std::move(workspace_.ring);  // finds its views itself
  workspace_ = {view(w.normed),     view(w.product), view(w.dnormed), view(w.dproduct),
                view(w.dattention), view(w.dqkv),    view(w.dx),      std::move(ring)};
  final_x_ = view(full_final_x_);
}

}  // namespace ll
