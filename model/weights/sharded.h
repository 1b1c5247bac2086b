// A model's weights that may lie in several safetensors files: `model.safetensors`, or the shards
// that `model.safetensors.index.json` lists. Torch-free. Immutable, thread-safe.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/weights/safetensors.h"

namespace ll {

// The weight_map of a model.safetensors.index.json: tensor name → name of a file in the same
// folder. InvalidArgument without the file's name.
absl::StatusOr<std::map<std::string, std::string>> ParseWeightIndex(absl::string_view text);

class ShardedSafetensors {
 public:
  // Errors name file and field: no weights in the folder (with a hint where it holds pickles), a
  // missing or corrupt shard, a tensor the index promises and the shard lacks, a tensor in two
  // shards.
  static absl::StatusOr<ShardedSafetensors> Open(const std::string& folder);

  struct Entry {
    std::shared_ptr<const SafetensorsFile> file;
    const TensorInfo* tensor;  // owned by file
  };
  // nullptr where there is no such tensor.
  const Entry* Find(absl::string_view name) const;
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }

 private:
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace ll
