// A model to use, from files: a model folder and perhaps an adapter. Evaluation and generation
// start here.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/llama.h"

namespace ll {

struct ModelRequest {
  std::string
      model;  // folder; may be empty where the adapter folder names its base or is a whole model
  std::string adapter;                  // adapter folder or checkpoint; may be empty
  int64_t context_size = 0;             // context the positions are scaled to; 0 = as configured
  std::string rope = "linear";          // how
  int64_t original_context_length = 0;  // overrides what the config states; 0 = does not
  std::string precision = "auto";       // fp32, bf16; auto = fp32 (this is a CPU build)
  // none, nf4; empty = as the model folder is stored and as the adapter was trained.
  std::string quantization;
};

// What a request comes down to; nothing large is read yet.
struct ModelFolders {
  std::string model;    // the base's folder, or that of a whole model
  std::string adapter;  // empty: none
  // The adapter folder's where it has one, so that the scaling it was trained with stays; reaching
  // further extends it.
  LlamaConfig config;
  ModelOptions options;  // inference only: precision, and whether the base is kept in NF4
};

// Errors name the folder or the key: no such folder, neither an adapter nor a model, a config this
// project cannot run, a context that the scaling cannot reach.
absl::StatusOr<ModelFolders> ResolveModel(const ModelRequest& request);

// LoRA is merged into 16-bit weights, which costs nothing for each token; beside NF4 it stays
// apart, as in training. Errors name file and tensor.
absl::StatusOr<std::unique_ptr<Llama>> LoadModel(const ModelFolders& folders);

}  // namespace ll
