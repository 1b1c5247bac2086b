#include "model/llama.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include <c10/core/GradMode.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/common/torch_op_trace.h"
#include "kernels/ops.h"
#include "model/attention_cuda.h"
#include "model/llama_state.h"
#include "model/phase_watch.h"
#include "model/torch_edge.h"

namespace ll {

namespace {

// `t` as contiguous int64, all in [0, vocab) or equal to `also`.
absl::StatusOr<at::Tensor> CheckedIds(const at::Tensor& t, int64_t vocab, int64_t also,
                                      const char* field) {
  if (t.dim() != 1 || t.size(0) < 1 ||
      (t.scalar_type() != at::kLong && t.scalar_type() != at::kInt)) {
    return MakeFieldError({.field = field,
                           .expected = "a vector of at least one int32 or int64",
                           .found = "something else"});
  }
  const at::Tensor ids = t.to(at::kLong).contiguous();
  const int64_t* p = ids.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < ids.numel(); ++i) {
    if ((p[i] < 0 || p[i] >= vocab) && p[i] != also) {
      return MakeFieldError({.field = field,
                             .expected = absl::StrCat("ids below the vocabulary of ", vocab),
                             .found = absl::StrCat(p[i], " at position ", i),
                             .hint = "the tokens were made with another tokenizer"});
    }
  }
  return ids;
}

constexpr int64_t kNoTarget = -100;

}  // namespace

absl::Status Llama::State::CheckWindow(int64_t tokens) const {
  if (options.dtype != at::kFloat || !AttendsOnGpu(options.device)) return absl::OkStatus();
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    const int64_t window = config.WindowOf(l);
    if (window == 0 || tokens <= window) continue;
    return MakeFieldError(
        {.field = "precision",
         .expected = absl::StrCat(
             "bf16 on a GPU where attention goes beyond the model's sliding_window of ", window,
             " tokens"),
         .found = "fp32",
         .hint = "or set sliding_window to null"});
  }
  return absl::OkStatus();
}

void Llama::State::PrepareRope(int64_t tokens) {
  const RopeTable table = MakeRopeTable(config, tokens);
  if (cos.defined() && cos.size(0) >= tokens &&
      at::equal(table.inverse_frequencies, rope.inverse_frequencies))
    return;
  cos = sin = at::Tensor();  // the old tables go before the new ones come
  rope = table;
  std::tie(cos, sin) = CosSin(rope, tokens);
  cos = cos.to(options.device);
  sin = sin.to(options.device);
}

absl::StatusOr<RowContext> Llama::State::MakeContext(const Row& row, const AttentionSpec& attention,
                                                     RowPeers* peers, at::Tensor& tokens,
                                                     at::Tensor& labels) {
  LL_ASSIGN_OR_RETURN(tokens,
                      CheckedIds(row.tokens, config.vocab_size, -1 - config.vocab_size, "tokens"));
  if (row.labels.defined()) {
    LL_ASSIGN_OR_RETURN(labels, CheckedIds(row.labels, config.vocab_size, kNoTarget, "labels"));
    if (labels.numel() != tokens.numel()) {
      return MakeFieldError({.field = "labels",
                             .expected = absl::StrCat("as many as tokens, ", tokens.numel()),
                             .found = absl::StrCat(labels.numel())});
    }
  }
  tokens = tokens.to(options.device);
  if (labels.defined()) labels = labels.to(options.device);
  RowContext context;
  PrepareRope(tokens.numel());
  context.cos = cos;
  context.sin = sin;
  context.dropout_key = row.dropout_key;
  if (peers == nullptr || peers->world_size() == 1) {
    LL_ASSIGN_OR_RETURN(context.plan,
                        MakeAttentionPlan(config, attention, tokens.numel(), row.documents));
    int64_t longest = 0;
    for (const auto& segments : context.plan.segments) {
      for (const Segment& s : segments) longest = std::max(longest, s.end - s.begin);
    }
    LL_RETURN_IF_ERROR(CheckWindow(longest));
    PlaceSequences(context.plan, options.device);
    return context;
  }
  std::vector<Segment>& mine = context.tokens;
  if (attention.kind == AttentionKind::kFull && tokens.numel() >= 2 * peers->world_size()) {
    LL_ASSIGN_OR_RETURN(context.ring, MakeRingPlan(config, tokens.numel(), row.documents,
                                                   peers->world_size(), peers->rank()));
    PlaceSequences(context.ring->local, options.device);
    mine = context.ring->chunks;
  } else {
    LL_ASSIGN_OR_RETURN(context.shard,
                        MakeShardPlan(config, attention, tokens.numel(), row.documents,
                                      peers->world_size(), peers->rank()));
    PlaceSequences(context.shard->local, options.device);
    mine = {context.shard->shard};
  }
  for (at::Tensor* t : {&tokens, &labels, &context.cos, &context.sin}) {
    if (!t->defined()) continue;
    std::vector<at::Tensor> parts;
    for (const auto& [begin, end] : mine) parts.push_back(t->narrow(0, begin, end - begin));
    *t = parts.size() == 1 ? parts[0] : at::cat(parts);
  }
  context.peers = peers;
  return context;
}

void Llama::State::StartPass(bool backward) {
  if (!base) return;
  std::vector<size_t> order(layers.size());
  std::iota(order.begin(), order.end(), 0);
  if (backward) {
    for (size_t l = layers.size(); l-- > 0;) order.push_back(l);
  }
  base->StartPass(std::move(order));
}

InputOffload* Llama::State::PrepareTraining(const RowContext& context, int64_t tokens) {
  buffers->Prepare(tokens, /*training=*/true,
                   context.shard ? context.shard->ReceivedElements() : 0);
  if (!offload) return nullptr;
  std::vector<at::Tensor> inputs;
  for (size_t l = 0; l < layers.size(); ++l)
    inputs.push_back(buffers->layer(static_cast<int64_t>(l)).x);
  offload->Prepare(std::move(inputs));
  return &*offload;
}

absl::Status Llama::State::Forward(const RowContext& context, const at::Tensor& tokens,
                                   InputOffload* offload) {
  const OpPhase phase("forward");
  if (offload != nullptr) offload->BeforeWrite(0);
  EmbeddingForward(embedding, tokens, buffers->layer(0).x);
  for (size_t l = 0; l < layers.size(); ++l) {
    if (offload != nullptr) {
      offload->Written(l);
      if (l + 1 < layers.size()) offload->BeforeWrite(l + 1);
    }
    LL_RETURN_IF_ERROR(Use(l));
    LL_RETURN_IF_ERROR(
        layers[l].Forward(context, buffers->layer(l), buffers->workspace(), buffers->output(l)));
  }
  return absl::OkStatus();
}

absl::Status Llama::State::BackwardHead(const at::Tensor& labels, double grad_scale,
                                        at::Tensor& nll, GradientObserver* gradients) {
  const size_t first = first_parameter.back(), last = parameters.size();
  if (gradients != nullptr) {
    gradients->Begin(first, last);
    if (config.tie_word_embeddings) gradients->Begin(0, first_parameter.front());
  }
  const OpPhase phase("loss");
  head->NllAndGradient(buffers->final_x(), labels, grad_scale, nll, buffers->workspace());
  return gradients != nullptr ? gradients->End(first, last) : absl::OkStatus();
}

absl::Status Llama::State::BackwardLayers(const RowContext& context, const at::Tensor& tokens,
                                          GradientObserver* gradients) {
  const OpPhase phase("backward");
  Workspace& w = buffers->workspace();
  for (size_t l = layers.size(); l-- > 0;) {
    const size_t first = first_parameter[l], last = first_parameter[l + 1];
    if (gradients != nullptr) gradients->Begin(first, last);
    LayerActivations& saved = buffers->layer(static_cast<int64_t>(l));
    LL_RETURN_IF_ERROR(Use(l));
    if (offload) offload->BeforeBackward(l);
    LL_RETURN_IF_ERROR(layers[l].Backward(context, options.recompute, saved, w));
    if (gradients != nullptr) LL_RETURN_IF_ERROR(gradients->End(first, last));
  }
  const size_t embedding_end = first_parameter.front();
  if (gradients != nullptr) gradients->Begin(0, embedding_end);
  if (embedding_grad.defined()) {
    if (config.pad_token_id >= 0) w.dx.masked_fill_(tokens.eq(config.pad_token_id).unsqueeze(1), 0);
    EmbeddingBackward(w.dx, tokens, embedding_grad);
  }
  return gradients != nullptr ? gradients->End(0, embedding_end) : absl::OkStatus();
}

absl::Status Llama::State::SitOut(RowPeers& peers) {
  const size_t back = options.recompute == Recompute::kFull ? 2 : 1;  // exchanges of a layer
  for (size_t i = 0; i < 2 * layers.size(); ++i) {
    const bool backward = i >= layers.size();
    LL_RETURN_IF_ERROR(Use(backward ? 2 * layers.size() - 1 - i : i));
    for (size_t k = 0; k < (backward ? back : 1); ++k) {
      LL_RETURN_IF_ERROR(peers.StartExchange({}, {}));
      LL_RETURN_IF_ERROR(peers.FinishExchange());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> Llama::ForwardBackward(const Row& row, const AttentionSpec& attention,
                                              double grad_scale, PhaseSeconds* seconds,
                                              RowPeers* peers, GradientObserver* gradients) {
  State& s = *state_;
  if (!s.options.trainable)
    return absl::FailedPreconditionError("this model was made for inference only");
  double loss = 0;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    c10::NoGradGuard no_grad;
    at::Tensor tokens, labels;
    LL_ASSIGN_OR_RETURN(const RowContext context,
                        s.MakeContext(row, attention, peers, tokens, labels));
    const auto enter = [peers](const char* phase) {
      if (peers != nullptr) peers->EnterPhase(phase);
    };
    PhaseWatch watch(s.options.device);
    enter("forward");
    s.StartPass(/*backward=*/true);
    if (tokens.numel() == 0) return s.SitOut(*peers);
    LL_RETURN_IF_ERROR(s.Forward(context, tokens, s.PrepareTraining(context, tokens.numel())));
    watch.Mark();

    at::Tensor nll = at::empty({tokens.numel()}, s.options.fp32());
    LL_RETURN_IF_ERROR(s.BackwardHead(labels, grad_scale, nll, gradients));
    const at::Tensor sum = nll.sum(at::kDouble);
    watch.Mark();

    enter("backward");
    LL_RETURN_IF_ERROR(s.BackwardLayers(context, tokens, gradients));
    watch.Mark();
    loss = sum.item<double>();  // the only place where a row waits for a GPU
    if (seconds != nullptr) {
      const std::vector<double> spent = watch.Seconds();
      seconds->forward += spent[0];
      seconds->head += spent[1];
      seconds->backward += spent[2];
    }
    return absl::OkStatus();
  }));
  return loss;
}

absl::Status Llama::SitOut(bool backward) {
  State& s = *state_;
  if (!s.base) return absl::OkStatus();
  return TorchTry([&]() -> absl::Status {
    s.StartPass(backward);
    const size_t layers = s.layers.size();
    for (size_t i = 0; i < (backward ? 2 : 1) * layers; ++i)
      LL_RETURN_IF_ERROR(s.Use(i < layers ? i : 2 * layers - 1 - i));
    return absl::OkStatus();
  });
}

absl::StatusOr<double> Llama::Nll(const Row& row, const AttentionSpec& attention,
                                  at::Tensor* per_token_nll) {
  State& s = *state_;
  double loss = 0;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    c10::NoGradGuard no_grad;
    at::Tensor tokens, labels;
    LL_ASSIGN_OR_RETURN(RowContext context,
                        s.MakeContext(row, attention, /*peers=*/nullptr, tokens, labels));
    context.dropout_key = 0;
    s.buffers->Prepare(tokens.numel(), /*training=*/false);
    s.StartPass(/*backward=*/false);
    LL_RETURN_IF_ERROR(s.Forward(context, tokens));
    at::Tensor nll = at::empty({tokens.numel()}, s.options.fp32());
    s.head->Nll(s.buffers->final_x(), labels, nll, s.buffers->workspace());
    loss = nll.sum(at::kDouble).item<double>();
    if (per_token_nll != nullptr) *per_token_nll = nll.cpu();
    return absl::OkStatus();
  }));
  return loss;
}

absl::StatusOr<at::Tensor> Llama::Logits(const at::Tensor& tokens, const AttentionSpec& attention) {
  State& s = *state_;
  at::Tensor logits;
  LL_RETURN_IF_ERROR(TorchTry([&]() -> absl::Status {
    c10::NoGradGuard no_grad;
    at::Tensor ids, no_labels;
    LL_ASSIGN_OR_RETURN(const RowContext context, s.MakeContext({tokens, {}, {}, 0}, attention,
                                                                /*peers=*/nullptr, ids, no_labels));
    s.buffers->Prepare(ids.numel(), /*training=*/false);
    s.StartPass(/*backward=*/false);
    LL_RETURN_IF_ERROR(s.Forward(context, ids));
    logits = s.head->Logits(s.buffers->final_x());
    return absl::OkStatus();
  }));
  return logits;
}

std::vector<Parameter>& Llama::parameters() { return state_->parameters; }

void Llama::ZeroGrad() {
  for (Parameter& p : state_->parameters) {
    if (p.grad.defined()) p.grad.zero_();
  }
}

void Llama::CastMastersToCompute() {
  for (Parameter& p : state_->parameters) {
    if (p.compute.scalar_type() != at::kFloat) p.compute.copy_(p.master);
  }
}

absl::Status Llama::ReserveRow(const Row& row, const AttentionSpec& attention, RowPeers* peers) {
  return TorchTry([&]() -> absl::Status {
    at::Tensor tokens, labels;
    LL_ASSIGN_OR_RETURN(const RowContext context,
                        state_->MakeContext(row, attention, peers, tokens, labels));
    if (tokens.numel() > 0) state_->PrepareTraining(context, tokens.numel());
    return absl::OkStatus();
  });
}

void Llama::ReleaseRowMemory() {
  State& s = *state_;
  if (s.offload) s.offload->Settle();
  // The old buffers go before anything else comes.
  s.buffers.emplace(s.config, s.options);
  s.offload.reset();
  if (s.options.offload_activations) s.offload.emplace(MakeHostCopier(s.options.device));
}

absl::Status Llama::SetMemoryPolicy(Recompute recompute, bool offload_activations) {
  ModelOptions wanted = state_->options;
  wanted.recompute = recompute;
  wanted.offload_activations = offload_activations;
  LL_RETURN_IF_ERROR(CheckOptions(state_->config, wanted));
  state_->options = wanted;
  return TorchTry([&] {
    ReleaseRowMemory();
    return absl::OkStatus();
  });
}

const LlamaConfig& Llama::config() const { return state_->config; }
const ModelOptions& Llama::options() const { return state_->options; }

absl::StatusOr<at::Tensor> Llama::Weight(const std::string& hf_name) const {
  if (hf_name == "model.embed_tokens.weight") return state_->embedding;
  if (hf_name == "lm_head.weight" && !state_->config.tie_word_embeddings)
    return state_->head_weight;
  if (hf_name == state_->head->norm().name) return state_->head->norm().w;
  if (state_->base) return absl::FailedPreconditionError("ranks divide this model's matrices");
  for (const LlamaLayer& layer : state_->layers) {
    if (at::Tensor w = layer.Weight(hf_name); w.defined()) return w;
  }
  return absl::NotFoundError(absl::StrCat("the model has no weight ", hf_name));
}

}  // namespace ll
