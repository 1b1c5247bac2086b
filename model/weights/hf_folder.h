// The weights of a Hugging Face folder as a WeightSource: views of the mapped files, checked
// against the config when the folder is opened, so that a bad folder fails before anything else is
// built. A folder may keep its linear weights in NF4 (nf4_io.h).
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/plan/config.h"
#include "model/weight_source.h"
#include "model/weights/sharded.h"

namespace ll {

class HfFolder : public WeightSource {
 public:
  // Errors name file and tensor: missing weight, wrong shape, a dtype other than F32, BF16 and F16.
  static absl::StatusOr<std::unique_ptr<HfFolder>> Open(const std::string& folder,
                                                        const LlamaConfig& config);

  absl::StatusOr<at::Tensor> Get(const std::string& hf_name) override;
  absl::StatusOr<std::optional<Nf4Tensor>> GetNf4(const std::string& hf_name) override;
  void Release(const std::string& hf_name) override;

 private:
  explicit HfFolder(ShardedSafetensors files) : files_(std::move(files)) {}
  ShardedSafetensors files_;
};

}  // namespace ll
