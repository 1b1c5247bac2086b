// Writes the weights of a Hugging Face folder: safetensors in shards with their index, one weight
// in memory at a time.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/config.h"
#include "model/weight_source.h"

namespace ll {

struct HfWriteOptions {
  std::string dtype = "bfloat16";  // of what is written: float32, bfloat16 or float16
  // The layers' matrices in NF4; embedding, head and norms stay in `dtype`, as in QLoRA.
  bool nf4 = false;
  int64_t max_shard_bytes = 5'000'000'000;  // a weight that is larger has a shard of its own
  std::function<bool()> stop = [] { return false; };  // asked before each weight: true = Cancelled
};

struct HfWritten {
  std::vector<std::string> files;  // names in the folder, the index included
  int64_t bytes = 0;               // of tensors
  // Of the weights in NF4.
  int64_t nf4_elements = 0, nf4_bytes = 0;
};

// Every weight of `config` from `source`, in file order, rounded once to the dtype. `folder`
// exists; config.json is the caller's. Errors name the weight: a value that is not finite or, in
// fp16, beyond its range; a size that NF4 cannot have; those of the source and of the disk.
absl::StatusOr<HfWritten> WriteHfWeights(WeightSource& source, const LlamaConfig& config,
                                         const std::string& folder, const HfWriteOptions& options);

// "float32", "bfloat16" or "float16" (a config's dtype) as torch's type.
at::ScalarType TorchDtype(const std::string& name);

}  // namespace ll
