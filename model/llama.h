// A Llama-family transformer (Llama, Mistral, Qwen2, Qwen3: model/plan/config.h) with a
// hand-written forward and backward pass.
//
// There is no autograd graph: the step calls GEMMs and the kernels of kernels/ in an order this
// library decides, so memory is exactly what ModelOptions::recompute says and a frozen weight never
// gets a gradient. Reading order: llama.h (this), llama_create.cc (weights), llama.cc (a row's
// passes), llama_layer.cc (one decoder layer), llama_head.cc (final norm, logits, loss),
// shifted_attention.h (S²-Attn); for generation llama_extend.cc and kv_cache.h.
//
// Thread-safety: none; one thread drives one Llama. The kernels use the intra-op threads of
// at::parallel_for. Results are bit-identical from run to run for the same thread count.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/plan/config.h"
#include "model/row_peers.h"
#include "model/spec/base_format.h"
#include "model/weight_source.h"

namespace ll {

// kS2: shifted sparse attention (training). kShort: groups without the shift (ablation). kFull:
// causal attention.
enum class AttentionKind { kS2, kShort, kFull };
// kSplit: the shifted heads' first and last half groups stand alone, no token sees the future.
// kRoll: the LongLoRA paper's pseudo-code, where those two halves share a group and the first G/2
// tokens see the last G/2 (parity only).
enum class WrapKind { kSplit, kRoll };

struct AttentionSpec {
  AttentionKind kind = AttentionKind::kFull;
  WrapKind wrap = WrapKind::kSplit;
  int64_t group_tokens = 0;  // G = floor(group_ratio * context_length); unused by kFull
};

// LoRA: y = x W^T + scale * (x A^T) B^T with scale = alpha / rank, or alpha / sqrt(rank) with
// use_rslora.
struct LoraSpec {
  int rank = 0;  // 0 = no LoRA
  double alpha = 16;
  double dropout = 0;  // probability of zeroing an element of x in front of A while training
  std::vector<std::string>
      target_modules;  // of q_proj k_proj v_proj o_proj gate_proj up_proj down_proj
  bool use_rslora = false;
};

// What the forward pass keeps for the backward pass, a layer and a token (d hidden, F intermediate,
// in elements of the compute dtype): kNone keeps everything but the cheap norms and activations,
// kSelective drops the MLP's gate and up projections (2F) and computes them again, kFull keeps the
// layer's input alone (d).
enum class Recompute { kNone, kSelective, kFull };

struct ModelOptions {
  BaseFormat base = BaseFormat::kCompute;  // of the linear layers' frozen weights
  at::ScalarType dtype = at::kBFloat16;    // of weights and activations: kFloat or kBFloat16
  at::Device device{at::kCPU};
  // What recomputation starts from lies in host memory between the passes (model/offload.h). GPUs.
  bool offload_activations = false;
  LoraSpec lora;
  bool train_embedding = false;  // with a tied head the trained embedding is the head too
  bool train_norm = false;
  bool train_all = false;  // method `full`: every weight is a Parameter; excludes lora
  bool trainable =
      true;  // false: inference only. Parameters keep a master, to load an adapter, but no gradient
  using Recompute = ll::Recompute;
  Recompute recompute = Recompute::kNone;
  int64_t loss_chunk_tokens = 0;  // rows of logits held at a time; 0 = automatic
  // What lies between operations that work token by token is held for so many at a time: one number
  // for every Recompute, for it decides in which order gradients are added up.
  int64_t tile_tokens = kTileTokens;
  uint64_t seed = 0;  // of LoRA A's initialisation

  // Of weights and activations, and of masters, gradients and statistics.
  at::TensorOptions compute() const { return at::TensorOptions(device).dtype(dtype); }
  at::TensorOptions fp32() const { return at::TensorOptions(device).dtype(at::kFloat); }
};

// A trained weight. The optimizer reads grad and writes master; compute is the copy in
// ModelOptions::dtype that the model reads. With dtype fp32 compute and master are the same
// storage.
struct Parameter {
  // Hugging Face's or PEFT's name without prefix: "model.embed_tokens.weight",
  // "model.layers.0.self_attn.q_proj.lora_A.weight".
  std::string name;
  at::Tensor compute;
  at::Tensor master;  // fp32
  at::Tensor grad;    // fp32; undefined when ModelOptions::trainable is false
  bool is_lora = false;
  bool is_embedding = false;
};

// One training or evaluation row.
struct Row {
  at::Tensor tokens;  // int64 or int32 [N]
  at::Tensor labels;  // int64 or int32 [N], already shifted: labels[t] is the target of position t,
                      // -100 = none
  std::vector<std::pair<int64_t, int64_t>>
      documents;  // [start, end) in order, covering the row; empty = one
  // Names the dropout masks: the same key gives the same masks (a hash of seed, step and row in the
  // global batch). 0 = no dropout.
  uint64_t dropout_key = 0;
};

// Seconds spent, added up over calls.
struct PhaseSeconds {
  double forward = 0;   // embedding and layers
  double head = 0;      // final norm, logits, loss and their gradients
  double backward = 0;  // layers (with recomputation) and embedding
};

// Who is told about gradients while a row's backward pass runs, from the last parameters to the
// first: [first, last) are indices in Llama::parameters(), a layer's or what comes before or after
// the layers.
class GradientObserver {
 public:
  virtual ~GradientObserver() = default;
  // The pass is about to add to these gradients.
  virtual void Begin(size_t first, size_t last) = 0;
  // It will not touch them again. An error ends the pass.
  virtual absl::Status End(size_t first, size_t last) = 0;
};

class KvCache;

// Which of the new positions' logits Llama::Extend returns.
enum class LogitsOf { kNone, kLast, kAll };

class Llama {
 public:
  // Reads every weight from `source` into ModelOptions::dtype. Errors: InvalidArgument naming the
  // field for options that contradict the config or each other, FailedPrecondition for a weight of
  // the wrong shape, and the source's own.
  // With `base`, which must outlive the model, the layers' frozen matrices are divided over those
  // ranks (model/sharded_base.h): every pass through the layers is collective over them, and a rank
  // that has no row calls SitOut. Generation (Extend) and Weight refuse such a model.
  static absl::StatusOr<std::unique_ptr<Llama>> Create(const LlamaConfig& config,
                                                       WeightSource& source,
                                                       const ModelOptions& options,
                                                       RowPeers* base = nullptr);
  ~Llama();

  // The sum over the row's valid targets of the negative log-likelihood. Gradients of (sum *
  // grad_scale) are ADDED to every Parameter's grad. Errors: InvalidArgument for a malformed row,
  // ResourceExhausted for lack of memory.
  // With several `peers` each rank takes its shard of the row's tokens (model/cp_exchange.h): the
  // sum and the gradients are the shard's, and those of all ranks add up to the row's. Collective;
  // every rank gives the same row. Errors: also what MakeShardPlan refuses, dropout, and a peer
  // that failed. A rank without a token of the row tells `gradients` nothing.
  absl::StatusOr<double> ForwardBackward(const Row& row, const AttentionSpec& attention,
                                         double grad_scale, PhaseSeconds* seconds = nullptr,
                                         RowPeers* peers = nullptr,
                                         GradientObserver* gradients = nullptr);

  // The same sum without gradients. `per_token_nll`, if given, becomes fp32 [N] on the CPU, 0 where
  // there is no target.
  absl::StatusOr<double> Nll(const Row& row, const AttentionSpec& attention,
                             at::Tensor* per_token_nll = nullptr);

  // This rank's part in a ForwardBackward or, without `backward`, an Nll of the ranks that divide
  // the base with it.
  absl::Status SitOut(bool backward);

  // Allocates, without computing, what ForwardBackward keeps of such a row. Exchanges nothing.
  // Errors: as ForwardBackward's.
  absl::Status ReserveRow(const Row& row, const AttentionSpec& attention,
                          RowPeers* peers = nullptr);
  // Frees what rows use, also after a pass that failed: the next one starts afresh.
  void ReleaseRowMemory();
  // From the next row on, what a row keeps and where; results are the same bits. Frees what rows
  // use. InvalidArgument where the two contradict each other; then nothing has changed.
  absl::Status SetMemoryPolicy(Recompute recompute, bool offload_activations);

  // All logits, fp32 [N, V]: for tests and short generations.
  absl::StatusOr<at::Tensor> Logits(const at::Tensor& tokens, const AttentionSpec& attention);

  // Runs `tokens` behind those in `cache` (model/kv_cache.h), which was made for this model and
  // grows by them, with full causal attention. Fp32 logits of the last new position [1, V], of all
  // of them [n, V], or an undefined tensor, on the CPU. A long prompt goes through in pieces of
  // kExtendTokens, so that beside the cache it needs no more memory than a short one. Dynamic NTK:
  // as in transformers, the new positions are rotated for the length this call ends at, and what is
  // in the cache stays as it was rotated. Errors: InvalidArgument for no tokens or ids beyond the
  // vocabulary, ResourceExhausted for lack of memory; the cache then holds a prefix of what it
  // should and may be truncated and used again.
  absl::StatusOr<at::Tensor> Extend(absl::Span<const int32_t> tokens, KvCache& cache,
                                    LogitsOf which = LogitsOf::kLast);
  static constexpr int64_t kExtendTokens = 512;

  // Trained weights in a fixed order: embedding, then layer by layer, then the final norm and an
  // untied head.
  std::vector<Parameter>& parameters();
  void ZeroGrad();
  // Copies every master to its compute tensor; to be called after the optimizer wrote masters
  // itself.
  void CastMastersToCompute();

  const LlamaConfig& config() const;
  const ModelOptions& options() const;
  // The weight (trained or frozen) as the model holds it, by its Hugging Face name; for saving and
  // merging. NotFound for an unknown name. LoRA's contribution is not included.
  absl::StatusOr<at::Tensor> Weight(const std::string& hf_name) const;

 private:
  struct State;
  explicit Llama(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace ll
