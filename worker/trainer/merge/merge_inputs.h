// What a merge starts from: an adapter and its base, or a whole model that training left.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/plan/config.h"
#include "model/weights/hf_folder.h"
#include "worker/trainer/checkpoint/adapter_config.h"
#include "worker/trainer/checkpoint/peft.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/merge/nf4_values.h"

namespace ll {

struct MergeRequest {
  std::string model;                  // base folder; empty: what the adapter names
  std::string adapter;                // PEFT's folder, or a checkpoint of any method
  std::string out;                    // folder to write
  std::string dtype;                  // bf16, fp16 or fp32; empty: the base's
  std::string onto;                   // 16bit or nf4; empty: what the base folder holds
  std::string quantization = "none";  // of the folder that is written: none or nf4
  int64_t max_shard_bytes = 5'000'000'000;
  int64_t context_length = 0;  // 0: as the adapter was trained
  std::string rope = "linear";
  bool overwrite = false, allow_missing_tokenizer = false, allow_other_base = false;
  std::string verify;                              // token file; empty: not measured
  int64_t verify_windows = 8, verify_seq_len = 0;  // 0: the context, at most 1024
};

// The files of one merge, opened and checked against each other. The weights stay on the disk.
struct MergeInputs {
  std::string model;       // base folder, or the whole model
  std::string adapter;     // empty: `model` is whole
  std::string checkpoint;  // the folder that was given
  std::optional<AdapterConfig> adapter_config;
  std::optional<TrainerState> state;  // where a training of this project left one
  LlamaConfig base_config;            // of `model`
  LlamaConfig config;                 // of the merged model
  bool trained_on_nf4 = false;
  std::string onto;  // 16bit or nf4
  std::vector<std::string> tokenizer_files;
  std::unique_ptr<HfFolder> base;

  // The merged weights on that base, before rounding; empty adapter: the model's own. The parts
  // refer to this object.
  struct Weights {
    std::unique_ptr<Nf4Values> quantized;
    std::unique_ptr<AdaptedWeights> adapted;
    WeightSource* exact = nullptr;
  };
  absl::StatusOr<Weights> WeightsOnto(const std::string& onto) const;
  // The type that the adapter's training computed in.
  at::ScalarType TrainedIn() const;
};

// Errors name the flag or the tensor: no such folder, an adapter of another base, a base in NF4
// where 16 bits are asked for, no tokenizer.
absl::StatusOr<MergeInputs> OpenMergeInputs(const MergeRequest& request);

}  // namespace ll
