#include "model/llama.h"

#include <algorithm>
#include <chrono>
#include <tuple>

#include <c10/core/GradMode.h>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "kernels/ops.h"
#include "model/llama_state.h"
#include "model/torch_edge.h"

namespace ll {

namespace {

class Stopwatch {
 public:
  // Seconds since construction or the last Lap.
  double Lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

absl::Status CheckOptions(const LlamaConfig& config, const ModelOptions& options) {
  if (options.dtype != at::kFloat && options.dtype != at::kBFloat16) {
    return MakeFieldError({.field = "dtype",
                           .expected = "float32 or bfloat16",
                           .found = c10::toString(options.dtype)});
  }
  if (!options.device.is_cpu()) {
    return absl::UnimplementedError(
        absl::StrCat("device ", options.device.str(), ": this build computes on the CPU"));
  }
  if (options.train_all && options.lora.rank > 0) {
    return MakeFieldError({.field = "lora.rank",
                           .expected = "0 where every weight is trained",
                           .found = absl::StrCat(options.lora.rank)});
  }
  if (options.lora.rank < 0 || options.lora.dropout < 0 || options.lora.dropout >= 1) {
    return MakeFieldError(
        {.field = "lora",
         .expected = "rank >= 0 and 0 <= dropout < 1",
         .found = absl::StrCat("rank ", options.lora.rank, ", dropout ", options.lora.dropout)});
  }
  static const char* const kTargets[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                         "gate_proj", "up_proj", "down_proj"};
  for (const std::string& target : options.lora.target_modules) {
    if (std::find(std::begin(kTargets), std::end(kTargets), target) == std::end(kTargets)) {
      return MakeFieldError(
          {.field = "lora.target_modules",
           .expected = "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or down_proj",
           .found = target});
    }
  }
  if (config.head_dim % 2 != 0 || config.num_key_value_heads < 1 ||
      config.num_attention_heads % config.num_key_value_heads != 0) {
    return MakeFieldError(
        {.field = "num_key_value_heads",
         .expected = "a divisor of num_attention_heads, and an even head_dim",
         .found = absl::StrCat(config.num_key_value_heads, " of ", config.num_attention_heads,
                               ", head_dim ", config.head_dim)});
  }
  return absl::OkStatus();
}

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

absl::Status Llama::State::LoadTable(const std::string& name, bool trained, WeightSource& source,
                                     at::Tensor& table, at::Tensor& master, at::Tensor& grad) {
  LL_ASSIGN_OR_RETURN(at::Tensor w, source.Get(name));
  if (w.sizes() != at::IntArrayRef({config.vocab_size, config.hidden_size})) {
    return absl::FailedPreconditionError(
        absl::StrCat(name, ": expected shape [", config.vocab_size, ", ", config.hidden_size,
                     "], found ", w.dim(), " dimensions and ", w.numel(), " elements"));
  }
  table = w.to(options.dtype, /*non_blocking=*/false, /*copy=*/true).contiguous();
  if (!trained) return absl::OkStatus();
  master = options.dtype == at::kFloat ? table : table.to(at::kFloat);
  if (options.trainable) grad = at::zeros_like(master);
  return absl::OkStatus();
}

absl::Status Llama::State::Load(WeightSource& source) {
  const bool train_embedding = options.train_embedding || options.train_all;
  LL_RETURN_IF_ERROR(LoadTable("model.embed_tokens.weight", train_embedding, source, embedding,
                               embedding_master, embedding_grad));
  if (config.tie_word_embeddings) {
    head_weight = embedding;
    head_grad = embedding_grad;
  } else {
    LL_RETURN_IF_ERROR(LoadTable("lm_head.weight", options.train_all, source, head_weight,
                                 head_master, head_grad));
  }
  for (int64_t l = 0; l < config.num_hidden_layers; ++l) {
    LL_ASSIGN_OR_RETURN(LlamaLayer layer, LlamaLayer::Create(config, l, options, source));
    layers.push_back(std::move(layer));
  }
  LL_ASSIGN_OR_RETURN(NormWeight norm,
                      NormWeight::Create("model.norm.weight", config.hidden_size, options, source));
  head.emplace(std::move(norm), config.rms_norm_eps, head_weight, head_grad, options.trainable,
               options.loss_chunk_tokens);
  buffers.emplace(config, options);
  CollectParameters();
  return absl::OkStatus();
}

void Llama::State::CollectParameters() {
  if (embedding_master.defined()) {
    parameters.push_back(
        {"model.embed_tokens.weight", embedding, embedding_master, embedding_grad, false, true});
  }
  for (const LlamaLayer& layer : layers) layer.AppendParameters(parameters);
  head->norm().AppendParameters(parameters);
  if (head_master.defined())
    parameters.push_back({"lm_head.weight", head_weight, head_master, head_grad, false, false});
}

void Llama::State::PrepareRope(int64_t tokens) {
  const RopeTable table = MakeRopeTable(config, tokens);
  if (cos.defined() && cos.size(0) >= tokens &&
      at::equal(table.inverse_frequencies, rope.inverse_frequencies))
    return;
  cos = sin = at::Tensor();  // the old tables go before the new ones come
  rope = table;
  std::tie(cos, sin) = CosSin(rope, tokens);
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
  RowContext context;
  PrepareRope(tokens.numel());
  context.cos = cos;
  context.sin = sin;
  context.dropout_key = row.dropout_key;
  if (peers == nullptr || peers->world_size() == 1) {
    LL_ASSIGN_OR_RETURN(context.plan,
                        MakeAttentionPlan(config, attention, tokens.numel(), row.documents));
    return context;
  }
  if (options.lora.dropout > 0 && row.dropout_key != 0) {
    // The mask's kernel counts rows from the first token that is here.
    return MakeFieldError({.field = "lora_dropout",
                           .expected = "0 where ranks share a row",
                           .found = absl::StrCat(options.lora.dropout)});
  }
  std::vector<Segment> mine;  // tokens of the row that are here
  if (attention.kind == AttentionKind::kFull && tokens.numel() >= 2 * peers->world_size()) {
    LL_ASSIGN_OR_RETURN(context.ring, MakeRingPlan(config, tokens.numel(), row.documents,
                                                   peers->world_size(), peers->rank()));
    mine = context.ring->chunks;
  } else {
    LL_ASSIGN_OR_RETURN(context.shard,
                        MakeShardPlan(config, attention, tokens.numel(), row.documents,
                                      peers->world_size(), peers->rank()));
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

absl::Status Llama::State::Forward(const RowContext& context, const at::Tensor& tokens) {
  EmbeddingForward(embedding, tokens, buffers->layer(0).x);
  for (size_t l = 0; l < layers.size(); ++l) {
    LL_RETURN_IF_ERROR(
        layers[l].Forward(context, buffers->layer(l), buffers->workspace(), buffers->output(l)));
  }
  return absl::OkStatus();
}

absl::Status Llama::State::SitOut(RowPeers& peers) const {
  const size_t passes = options.recompute == Recompute::kFull ? 3 : 2;
  for (size_t i = 0; i < passes * layers.size(); ++i) {
    LL_RETURN_IF_ERROR(peers.StartExchange({}, {}));
    LL_RETURN_IF_ERROR(peers.FinishExchange());
  }
  return absl::OkStatus();
}

Llama::Llama(std::unique_ptr<State> state) : state_(std::move(state)) {}
Llama::~Llama() = default;

absl::StatusOr<std::unique_ptr<Llama>> Llama::Create(const LlamaConfig& config,
                                                     WeightSource& source,
                                                     const ModelOptions& options) {
  LL_RETURN_IF_ERROR(CheckOptions(config, options));
  auto state = std::make_unique<State>();
  state->config = config;
  state->options = options;
  LL_RETURN_IF_ERROR(TorchTry([&] {
    c10::NoGradGuard no_grad;
    return state->Load(source);
  }));
  return std::unique_ptr<Llama>(new Llama(std::move(state)));
}

absl::StatusOr<double> Llama::ForwardBackward(const Row& row, const AttentionSpec& attention,
                                              double grad_scale, PhaseSeconds* seconds,
                                              RowPeers* peers) {
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
    PhaseSeconds spent;
    Stopwatch watch;
    enter("forward");
    if (tokens.numel() == 0) return s.SitOut(*peers);
    s.buffers->Prepare(tokens.numel(), /*training=*/true,
                       context.shard ? context.shard->ReceivedElements() : 0);
    LL_RETURN_IF_ERROR(s.Forward(context, tokens));
    spent.forward = watch.Lap();

    Workspace& w = s.buffers->workspace();
    at::Tensor nll = at::empty({tokens.numel()}, at::kFloat);
    s.head->NllAndGradient(s.buffers->final_x(), labels, grad_scale, nll, w.dx);
    loss = nll.sum(at::kDouble).item<double>();
    spent.head = watch.Lap();

    enter("backward");
    for (size_t l = s.layers.size(); l-- > 0;) {
      LayerActivations& saved = s.buffers->layer(static_cast<int64_t>(l));
      LL_RETURN_IF_ERROR(s.layers[l].Restore(context, s.options.recompute, saved, w));
      LL_RETURN_IF_ERROR(s.layers[l].Backward(context, saved, w));
    }
    if (s.embedding_grad.defined()) EmbeddingBackward(w.dx, tokens, s.embedding_grad);
    spent.backward = watch.Lap();
    if (seconds != nullptr) {
      seconds->forward += spent.forward;
      seconds->head += spent.head;
      seconds->backward += spent.backward;
    }
    return absl::OkStatus();
  }));
  return loss;
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
    LL_RETURN_IF_ERROR(s.Forward(context, tokens));
    at::Tensor nll = at::empty({tokens.numel()}, at::kFloat);
    s.head->Nll(s.buffers->final_x(), labels, nll);
    loss = nll.sum(at::kDouble).item<double>();
    if (per_token_nll != nullptr) *per_token_nll = nll;
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

const LlamaConfig& Llama::config() const { return state_->config; }
const ModelOptions& Llama::options() const { return state_->options; }

absl::StatusOr<at::Tensor> Llama::Weight(const std::string& hf_name) const {
  if (hf_name == "model.embed_tokens.weight") return state_->embedding;
  if (hf_name == "lm_head.weight" && !state_->config.tie_word_embeddings)
    return state_->head_weight;
  if (hf_name == state_->head->norm().name) return state_->head->norm().w;
  for (const LlamaLayer& layer : state_->layers) {
    if (at::Tensor w = layer.Weight(hf_name); w.defined()) return w;
  }
  return absl::NotFoundError(absl::StrCat("the model has no weight ", hf_name));
}

}  // namespace ll
