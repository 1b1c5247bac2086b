// Generation: tokens behind a KV cache, layer by layer. Nothing here is used in training.
#include <algorithm>
#include <vector>

#include <c10/core/GradMode.h>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "model/llama_state.h"
#include "model/torch_edge.h"

namespace ll {
namespace {

absl::StatusOr<at::Tensor> TokenTensor(absl::Span<const int32_t> tokens, int64_t vocab) {
  if (tokens.empty()) return MakeFieldError({"tokens", "at least one token", "none"});
  at::Tensor out = at::empty({static_cast<int64_t>(tokens.size())}, at::kLong);
  int64_t* ids = out.data_ptr<int64_t>();
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] < 0 || tokens[i] >= vocab) {
      return MakeFieldError({.field = "tokens",
                             .expected = absl::StrCat("ids below the vocabulary of ", vocab),
                             .found = absl::StrCat(tokens[i], " at position ", i),
                             .hint = "the tokens were made with another tokenizer"});
    }
    ids[i] = tokens[i];
  }
  return out;
}

}  // namespace

void LlamaLayer::Extend(const NewTokens& context, KvCache::Layer& cache, LayerActivations& s,
                        Workspace& w, at::Tensor& x_out) const {
  const std::vector<Tile> tiles = Tiles(s, /*tokens=*/{});
  constexpr auto kForward = Projection::Use::kForward;
  const auto qkv_weight = qkv_.Open(kForward, Projection::Place::kFirst);
  for (const Tile& tile : tiles) {
    at::Tensor qkv = tile.Of(s.qkv);
    qkv_.Infer(qkv_weight, Normalize(tile, input_norm_, s.x, s.rstd_in, w), qkv);
  }
  NormHeads(s);
  RopeInPlace(s.qkv, rotated_heads_, context.cos, context.sin, /*backward=*/false);
  context.attention.Run(s.qkv, window_, cache, s.attention);
  o_.InferAdd(o_.Open(kForward, Projection::Place::kFirst), s.attention, s.x, s.x_mid);
  const auto wide = gate_up_.Open(kForward, Projection::Place::kFirst);
  const auto down = down_.Open(kForward, Projection::Place::kSecond);
  for (const Tile& tile : tiles) {
    at::Tensor gate_up = Kept(tile, s, s.gate_up), product = tile.In(w.product),
               out = tile.Of(x_out);
    gate_up_.Infer(wide, Normalize(tile, post_norm_, s.x_mid, s.rstd_mid, w), gate_up);
    SwigluForward(gate_up, product);
    down_.InferAdd(down, product, tile.Of(s.x_mid), out);
  }
}

std::pair<at::Tensor, at::Tensor> Llama::State::RopeBehind(const KvCache& cache, int64_t total) {
  const int64_t past = cache.tokens();
  if (config.rope.type == RopeScaling::Type::kDynamicNtk) {
    const auto [own_cos, own_sin] = CosSin(MakeRopeTable(config, total), total - past, past);
    return {own_cos.to(options.device), own_sin.to(options.device)};
  }
  // More than is needed now, so that a table serves many tokens; not for all the cache could hold.
  if (!cos.defined() || cos.size(0) < total)
    PrepareRope(std::max(total, std::min(cache.capacity(), 2 * total)));
  return {cos.narrow(0, past, total - past), sin.narrow(0, past, total - past)};
}

absl::StatusOr<at::Tensor> Llama::Extend(absl::Span<const int32_t> tokens, KvCache& cache,
                                         LogitsOf which) {
  State& s = *state_;
  if (s.base)
    return absl::FailedPreconditionError("ranks divide this model's matrices: it cannot generate");
  at::Tensor logits;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    c10::NoGradGuard no_grad;
    LL_ASSIGN_OR_RETURN(const at::Tensor ids, TokenTensor(tokens, s.config.vocab_size));
    const int64_t count = ids.numel(), total = cache.tokens() + count;
    LL_RETURN_IF_ERROR(s.CheckWindow(total));
    cache.Reserve(total);
    const at::Tensor here = ids.to(s.options.device);
    const auto [cos, sin] = s.RopeBehind(cache, total);
    std::vector<at::Tensor> parts;
    for (int64_t begin = 0; begin < count; begin += kExtendTokens) {
      const int64_t n = std::min(kExtendTokens, count - begin);
      const NewTokens context{CachedAttention(s.config, cache.tokens(), n), cos.narrow(0, begin, n),
                              sin.narrow(0, begin, n)};
      s.buffers->Prepare(n, /*training=*/false);
      EmbeddingForward(s.embedding, here.narrow(0, begin, n), s.buffers->layer(0).x);
      for (size_t l = 0; l < s.layers.size(); ++l) {
        s.layers[l].Extend(context, cache.layer(l), s.buffers->layer(l), s.buffers->workspace(),
                           s.buffers->output(l));
      }
      cache.Commit(n);
      const at::Tensor& x = s.buffers->final_x();
      if (which == LogitsOf::kAll) {
        parts.push_back(s.head->Logits(x));
      } else if (which == LogitsOf::kLast && begin + n == count) {
        parts.push_back(s.head->Logits(x.narrow(0, n - 1, 1)));
      }
    }
    if (!parts.empty()) logits = (parts.size() == 1 ? parts[0] : at::cat(parts)).cpu();
    return absl::OkStatus();
  }));
  return logits;
}

}  // namespace ll
