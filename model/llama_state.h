// What a Llama holds; private to the files that implement its methods (llama_create.cc: weights and
// parameters; llama.cc: rows, forward and backward; llama_extend.cc: generation).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/activations.h"
#include "model/llama.h"
#include "model/llama_head.h"
#include "model/llama_layer.h"
#include "model/offload.h"
#include "model/rope.h"
#include "model/sharded_base.h"

namespace ll {

// InvalidArgument where no such model can be made, or its options contradict each other.
absl::Status CheckOptions(const LlamaConfig& config, const ModelOptions& options);

struct Llama::State {
  LlamaConfig config;
  ModelOptions options;
  at::Tensor embedding, embedding_master,
      embedding_grad;                              // [V, d]; masters and gradients where trained
  at::Tensor head_weight, head_master, head_grad;  // the same tensors as the embedding's where tied
  std::vector<LlamaLayer> layers;
  std::optional<LlamaHead> head;
  std::optional<ShardedBase> base;  // where ranks divide the frozen matrices
  std::optional<ActivationBuffers> buffers;
  std::optional<InputOffload> offload;  // with ModelOptions::offload_activations
  std::vector<Parameter> parameters;
  // Where in `parameters` those of each layer begin; then those behind the layers.
  std::vector<size_t> first_parameter;
  RopeTable rope;
  at::Tensor cos, sin;  // fp32 [longest row so far, D / 2]

  absl::Status Load(WeightSource& source);
  // The order in which a pass uses the layers.
  void StartPass(bool backward);
  absl::Status Use(size_t layer) { return base ? base->Use(layer) : absl::OkStatus(); }
  absl::Status LoadTable(const std::string& name, bool trained, WeightSource& source,
                         at::Tensor& table, at::Tensor& master, at::Tensor& grad);
  void CollectParameters();
  // InvalidArgument where `tokens` that attend to each other go beyond the window of a layer and
  // the device has no kernel for that: a GPU in fp32.
  absl::Status CheckWindow(int64_t tokens) const;
  void PrepareRope(int64_t tokens);
  // With several `peers` tokens and labels become those of this rank's shard.
  absl::StatusOr<RowContext> MakeContext(const Row& row, const AttentionSpec& attention,
                                         RowPeers* peers, at::Tensor& tokens, at::Tensor& labels);
  // `offload`, if given, takes the layers' inputs.
  absl::Status Forward(const RowContext& context, const at::Tensor& tokens,
                       InputOffload* offload = nullptr);
  // The buffers of a row whose backward pass follows; where its layers' inputs go, or null.
  InputOffload* PrepareTraining(const RowContext& context, int64_t tokens);
  // The two halves of a backward pass; they tell `gradients`, which may be null.
  absl::Status BackwardHead(const at::Tensor& labels, double grad_scale, at::Tensor& nll,
                            GradientObserver* gradients);
  absl::Status BackwardLayers(const RowContext& context, const at::Tensor& tokens,
                              GradientObserver* gradients);
  // What a rank without a token of the row does: as many exchanges as the others.
  absl::Status SitOut(RowPeers& peers);
  // cos and sin of the positions behind `cache`, for new tokens that make it `total` long.
  std::pair<at::Tensor, at::Tensor> RopeBehind(const KvCache& cache, int64_t total);
};

}  // namespace ll
