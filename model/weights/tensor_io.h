// Safetensors <-> at::Tensor: views without a copy, and writing a set of tensors as one file.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/weights/safetensors.h"

namespace ll {

// A CPU tensor of the mapped bytes; it keeps the file mapped and must not be written. A tensor
// whose bytes are not aligned to its dtype is copied. Error: a dtype that torch lacks.
absl::StatusOr<at::Tensor> TensorView(std::shared_ptr<const SafetensorsFile> file,
                                      const TensorInfo& tensor);

// Writes contiguous copies of `tensors` (any device) in the given order; the file appears whole and
// synced.
absl::Status WriteSafetensors(const std::string& path,
                              const std::vector<std::pair<std::string, at::Tensor>>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

}  // namespace ll
