// Going on from an adapter folder, PEFT's own or a checkpoint of this project: what it is made of
// decides the spec's LoRA keys, its tensors become the masters.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/spec/job_spec.h"
#include "worker/trainer/checkpoint/adapter_config.h"

namespace ll {

// Errors name the file.
absl::StatusOr<AdapterConfig> ReadAdapterConfig(const std::string& adapter_folder);

// `given` with rank, alpha, dropout, target modules and trained parts as the adapter has them.
// Errors: a key given with another value (dropout may differ, and more parts may train than the
// adapter holds); method full.
absl::StatusOr<JobSpec> SpecFromAdapter(const JobSpec& given, const AdapterConfig& adapter);

// The LoRA part of an adapter, to create a model that it can be loaded into.
LoraSpec LoraSpecOf(const AdapterConfig& adapter);

// Copies the adapter's tensors into the model's masters and refreshes its compute copies. Errors
// name the tensor: a LoRA matrix that is missing, another shape, a tensor the model has no use for.
absl::Status LoadAdapter(const std::string& adapter_folder, Llama& model);

}  // namespace ll
