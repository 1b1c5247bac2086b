// NF4 weights in a safetensors folder, under the names and in the layout that bitsandbytes gives
// them (its 4-bit state dict, as transformers' save_pretrained writes it). Beside the codes of
// W.weight, u8 [numel / 2, 1]:
//   W.weight.absmax            u8 [numel / 64]
//   W.weight.nested_absmax     fp32 [ceil(numel / 64 / 256)]
//   W.weight.nested_quant_map  fp32 [256]
//   W.weight.quant_map         fp32 [16]
//   W.weight.quant_state.bitsandbytes__nf4   u8, JSON: quant_type, blocksize, dtype, shape,
//                                            nested_blocksize, nested_dtype, nested_offset
// Functions are thread-safe.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "model/weights/safetensors.h"
#include "model/weights/sharded.h"
#include "nlohmann/json.hpp"

namespace ll {

// Whether `name` is kept in NF4.
bool IsNf4(const ShardedSafetensors& files, const std::string& name);

// Checks the tensors of one weight of `shape` against each other without reading the codes. Errors
// name file, tensor, what was expected and found: another quantisation (no double quantisation,
// other block sizes or codes), a size that does not fit.
absl::Status CheckNf4(const ShardedSafetensors& files, const std::string& name,
                      const std::vector<int64_t>& shape);

// The weight, its codes as views of the mapped file; to be checked with CheckNf4 first.
absl::StatusOr<Nf4Tensor> ReadNf4(const ShardedSafetensors& files, const std::string& name);

// Names, dtypes and shapes of what Nf4Tensors gives for a weight of this shape, for a header that
// is written before the weight is quantised.
std::vector<TensorInfo> Nf4TensorInfos(const std::string& name, const std::vector<int64_t>& shape);
// The tensors to write. `dtype`: of the weight before ("bfloat16", "float16", "float32").
std::vector<std::pair<std::string, at::Tensor>> Nf4Tensors(const std::string& name,
                                                           const Nf4Tensor& q,
                                                           const std::string& dtype);

// The member `quantization_config` of such a folder's config.json.
nlohmann::json Nf4QuantizationConfig(const std::string& dtype);

}  // namespace ll
